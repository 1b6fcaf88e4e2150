#!lua
-- Deletes the marks of lapsed holds among some seats of a schedule. They have no effect any more,
-- but they count.
--
-- KEYS: epoch reservations s:seats
-- ARGV: epoch, then the numbers of the seats (at most 500)
-- Reply: how many were deleted
--
-- uses: constants guard seat
local gone = {}
for i, value in ipairs(redis.call('HMGET', seats, unpack(ARGV, 2))) do
  if value and not seat_state(value) then
    gone[#gone + 1] = ARGV[i + 1]
  end
end
if #gone > 0 then
  redis.call('HDEL', seats, unpack(gone))
end
return #gone
