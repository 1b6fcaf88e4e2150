#!lua flags=no-writes
-- Returns the seats of a range of at most 1,000 numbers that are held or sold.
--
-- KEYS: epoch reservations s:seats
-- ARGV: epoch, first number, last number
-- Reply: {number, seat code, reservation, end of the hold in milliseconds (0 once sold), …}
--
-- uses: constants guard seat
local numbers, reply = {}, {}
for number = tonumber(ARGV[2]), tonumber(ARGV[3]) do
  numbers[#numbers + 1] = number
end
for i, value in ipairs(redis.call('HMGET', seats, unpack(numbers))) do
  local state = seat_state(value)
  if state then
    local held_until = state == HELD_SEAT and string.sub(value, 17) or '0'
    reply[#reply + 1], reply[#reply + 2] = numbers[i], state
    reply[#reply + 1], reply[#reply + 2] = string.sub(value, 1, 16), held_until
  end
end
return reply
