#!lua flags=no-writes
-- Returns which seats of a schedule are not available, for a range of at most 1,000 numbers.
--
-- KEYS: epoch reservations s:seats
-- ARGV: epoch, first number, last number
-- Reply: {number, seat code, …}; seats that are left out are available
--
-- uses: constants guard seat
local numbers, reply = {}, {}
for number = tonumber(ARGV[2]), tonumber(ARGV[3]) do
  numbers[#numbers + 1] = number
end
for i, value in ipairs(redis.call('HMGET', seats, unpack(numbers))) do
  local state = seat_state(value)
  if state then
    reply[#reply + 1], reply[#reply + 2] = numbers[i], state
  end
end
return reply
