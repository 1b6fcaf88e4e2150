#!lua flags=no-writes
-- Returns whether any seat of a range of at most 1,000 numbers is held or sold.
--
-- KEYS: epoch reservations s:seats
-- ARGV: epoch, first number, last number
-- Reply: 1 or 0
--
-- uses: constants guard seat
local numbers = {}
for number = tonumber(ARGV[2]), tonumber(ARGV[3]) do
  numbers[#numbers + 1] = number
end
for _, value in ipairs(redis.call('HMGET', seats, unpack(numbers))) do
  if seat_state(value) then
    return 1
  end
end
return 0
