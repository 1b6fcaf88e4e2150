#!lua flags=no-writes
-- Returns the status of each seat of a schedule, for a range of at most 1,000 numbers.
--
-- KEYS: epoch reservations s:seats
-- ARGV: epoch, first number, last number
-- Reply: one letter for each number: a (available), h (held) or s (sold)
--
-- uses: constants guard seat
local numbers, letters = {}, {}
for number = tonumber(ARGV[2]), tonumber(ARGV[3]) do
  numbers[#numbers + 1] = number
end
for i, value in ipairs(redis.call('HMGET', seats, unpack(numbers))) do
  local state = seat_state(value)
  letters[i] = state == SOLD_SEAT and 's' or state == HELD_SEAT and 'h' or 'a'
end
return table.concat(letters)
