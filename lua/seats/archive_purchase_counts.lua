#!lua
-- Reads the next part of what users of a queue have bought and deletes the counts of an archived
-- concert.
--
-- KEYS: epoch q:bought
-- ARGV: epoch, the cursor of the call before ("0" begins), concert
-- Reply: {now, next cursor ("0": end), how many were deleted}
--
-- uses: constants guard
local part, gone, prefix = redis.call('HSCAN', bought, ARGV[2], 'COUNT', 500), {}, ARGV[3] .. ':'
for i = 1, #part[2], 2 do
  if string.sub(part[2][i], 1, #prefix) == prefix and #gone < 1000 then
    gone[#gone + 1] = part[2][i]
  end
end
if #gone > 0 then
  redis.call('HDEL', bought, unpack(gone))
end
return { text(now), part[1], #gone }
