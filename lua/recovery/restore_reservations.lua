#!lua
-- Restores reservations that have ended.
--
-- KEYS: epoch reservations
-- ARGV: epoch, checkpoint, then for each: reservation, user, queue, concert, schedule, detail,
--   amount, status, held_until, created_at, at, score, payment, title, starts_at, paid, discount
--   (the last six may be empty), cancellations (JSON), count, seat…
-- Reply: 1
--
-- uses: constants guard reservation
local at = 3
while at <= #ARGV do
  local numbers, count = {}, tonumber(ARGV[at + 18])
  for i = 1, count do
    numbers[i] = tonumber(ARGV[at + 18 + i])
  end
  local function word(i)
    return ARGV[at + i] ~= '' and ARGV[at + i] or nil
  end
  local done = cjson.decode(ARGV[at + 17])
  save({
    id = ARGV[at], user = ARGV[at + 1], queue = ARGV[at + 2], concert = ARGV[at + 3],
      schedule = ARGV[at + 4], seats = numbers, detail = ARGV[at + 5],
    amount = tonumber(ARGV[at + 6]), status = ARGV[at + 7], held_until = tonumber(ARGV[at + 8]),
      created_at = tonumber(ARGV[at + 9]),
    at = tonumber(ARGV[at + 10]), score = word(11), payment = word(12), title = word(13),
      starts_at = tonumber(ARGV[at + 14]),
      paid = tonumber(ARGV[at + 15]), discount = tonumber(ARGV[at + 16]),
      cancellations = #done > 0 and done or nil, n = tonumber(ARGV[2]),
  })
  at = at + 19 + count
end
return 1
