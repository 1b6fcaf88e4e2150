#!lua
-- Goes through the seats of a schedule, a part in each call, and drops the marks of holds that have lapsed: they meant nothing any more.
--
-- KEYS: epoch reservations s:seats
-- ARGV: epoch, the cursor of the call before ("0" begins)
-- Reply: {now, next cursor ("0": all was seen), how many were dropped}
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
