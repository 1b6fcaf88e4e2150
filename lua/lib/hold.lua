-- What every hold of seats has in common: who may hold, and what a hold writes. Uses settings, slot, reservation.
-- ARGV 2…9 are queue, concert, schedule, version and seats of the concert as laid, booking opens at, booking closes at (empty: never), hold_ms, max seats a user.
-- Another version of the concert than is laid here ends the script with −2.
-- Gives: HELD, TAKEN, LIMIT, NOT_OPEN, WAITING, EXPIRED; refusal(user, score, count) → code or nil; place(id, user, score, amount, detail, numbers) → held_until (text).
local HELD, TAKEN, LIMIT, NOT_OPEN, WAITING, EXPIRED = 1, 2, 3, 4, 5, 6
local queue, concert, schedule = ARGV[2], ARGV[3], ARGV[4]
local opens, closes, hold_ms, max_seats = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
if redis.call('HGET', concerts, concert) ~= ARGV[5] then
  return -2
end
redis.call('ZCARD', holds)
redis.call('HLEN', reservations)
local bookable = (not opens or now >= opens) and (not closes or now < closes)
local function counted(user)
  local sum = tonumber(redis.call('HGET', bought, concert .. ':' .. user) or '0')
  for _, r in ipairs(open_of(user)) do
    if r.concert == concert then
      sum = sum + #r.seats
    end
  end
  return sum
end
local function refusal(user, score, count)
  if standing(user) ~= score then
    return redis.call('ZSCORE', waiting, user) == score and WAITING or EXPIRED
  end
  if not bookable then
    return NOT_OPEN
  end
  if counted(user) + count > max_seats then
    return LIMIT
  end
end
local function place(id, user, score, amount, detail, numbers)
  local _, deadline, base = standing(user)
  local until_text, marks = text(now + hold_ms), {}
  for _, number in ipairs(numbers) do
    marks[#marks + 1], marks[#marks + 2] = number, id .. until_text
  end
  local r = {
    id = id, user = user, queue = queue, concert = concert, schedule = schedule, seats = numbers, detail = detail, amount = amount,
    status = 'held', held_until = now + hold_ms, created_at = now, score = score,
  }
  show_up(user, score, deadline, base)
  redis.call('HSET', seats, unpack(marks))
  save(r)
  add_open(user, id)
  redis.call('ZADD', holds, r.held_until, id)
  redis.call('ZADD', active, 'XX', 'GT', r.held_until, user)
  return until_text
end
