#!lua
-- Reads the next part of the seats of a schedule and deletes the marks of lapsed holds, which
-- have no effect any more.
--
-- KEYS: epoch reservations s:seats
-- ARGV: epoch, the cursor of the call before ("0" begins)
-- Reply: {now, next cursor ("0": end), how many were deleted}
--
-- uses: constants guard seat
local part = redis.call('HSCAN', seats, ARGV[2], 'COUNT', 200)
local gone = {}
for i = 1, #part[2], 2 do
  if not seat_state(part[2][i + 1]) and #gone < 1000 then
    gone[#gone + 1] = part[2][i]
  end
end
if #gone > 0 then
  redis.call('HDEL', seats, unpack(gone))
end
return { text(now), part[1], #gone }
