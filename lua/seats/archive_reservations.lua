#!lua
-- Reads the next part of the reservations of a partition and deletes those of an archived
-- concert, with their payments. MySQL has them all.
--
-- KEYS: epoch reservations payments
-- ARGV: epoch, the cursor of the call before ("0" begins), concert
-- Reply: {now, next cursor ("0": end), how many were deleted}
--
-- uses: constants guard
redis.call('HLEN', payments)
local part, gone, bought = redis.call('HSCAN', reservations, ARGV[2], 'COUNT', 200), {}, {}
for i = 1, #part[2], 2 do
  local r = cmsgpack.unpack(part[2][i + 1])
  if r.concert == ARGV[3] and #gone < 1000 then
    gone[#gone + 1] = part[2][i]
    bought[#bought + 1] = r.payment
  end
end
if #gone > 0 then
  redis.call('HDEL', reservations, unpack(gone))
end
if #bought > 0 then
  redis.call('HDEL', payments, unpack(bought))
end
return { text(now), part[1], #gone }
