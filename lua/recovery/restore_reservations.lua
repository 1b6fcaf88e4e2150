#!lua
-- Restores reservations that have ended.
--
-- KEYS: epoch reservations
-- ARGV: epoch, checkpoint, then for each: reservation, user, queue, concert, schedule, detail,
--   amount, status, held_until, created_at, at, score, payment, the key that cancelled it (the
--   last three may be empty), count, seat…
-- Reply: 1
--
-- uses: constants guard reservation
local at = 3
while at <= #ARGV do
  local numbers, count = {}, tonumber(ARGV[at + 14])
  for i = 1, count do
    numbers[i] = tonumber(ARGV[at + 14 + i])
  end
  local function word(i)
    return ARGV[at + i] ~= '' and ARGV[at + i] or nil
  end
  save({
    id = ARGV[at], user = ARGV[at + 1], queue = ARGV[at + 2], concert = ARGV[at + 3],
      schedule = ARGV[at + 4], seats = numbers, detail = ARGV[at + 5],
    amount = tonumber(ARGV[at + 6]), status = ARGV[at + 7], held_until = tonumber(ARGV[at + 8]),
      created_at = tonumber(ARGV[at + 9]),
    at = tonumber(ARGV[at + 10]), score = word(11), payment = word(12), key = word(13),
      n = tonumber(ARGV[2]),
  })
  at = at + 15 + count
end
return 1
