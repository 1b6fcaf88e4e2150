#!lua
-- Holds seats of one schedule for users who are active: all seats of a request or none.
--
-- KEYS: generation reservations q:settings q:active q:admitted q:waiting q:concerts q:holds q:owners q:bought s:seats
-- ARGV: generation, queue, concert, schedule, version and seats of the concert as laid, booking opens at, booking closes at (empty: never), hold_ms, max seats a user,
--   then for each request: reservation, user, score, amount, detail, count, seat…
-- Reply: {now, {state, …}…}
--   1 held: held_until; 2 taken: seats…; 3 above the limit of a user; 4 booking is not open; 5 waiting; 6 the slot is gone
--   −2 the queue has no settings, or another version of the concert is laid here
--
-- uses: guard settings slot reservation seat
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

local function hold(id, user, score, amount, detail, numbers)
  local own, deadline, base = standing(user)
  if own ~= score then
    return { redis.call('ZSCORE', waiting, user) == score and WAITING or EXPIRED }
  end
  if not bookable then
    return { NOT_OPEN }
  end
  if counted(user) + #numbers > max_seats then
    return { LIMIT }
  end
  local clash = { TAKEN }
  for i, value in ipairs(redis.call('HMGET', seats, unpack(numbers))) do
    if seat_state(value) then
      clash[#clash + 1] = tonumber(numbers[i])
    end
  end
  if #clash > 1 then
    return clash
  end
  local until_text = text(now + hold_ms)
  local r = {
    id = id, user = user, queue = queue, concert = concert, schedule = schedule, seats = {}, detail = detail, amount = tonumber(amount),
    status = 'held', held_until = now + hold_ms, created_at = now, score = score,
  }
  local marks = {}
  for i, number in ipairs(numbers) do
    r.seats[i] = tonumber(number)
    marks[#marks + 1], marks[#marks + 2] = number, id .. until_text
  end
  show_up(user, score, deadline, base)
  redis.call('HSET', seats, unpack(marks))
  save(r)
  add_open(user, id)
  redis.call('ZADD', holds, r.held_until, id)
  redis.call('ZADD', active, 'XX', 'GT', r.held_until, user)
  return { HELD, until_text }
end

local replies, at = {}, 10
while at <= #ARGV do
  local count, numbers = tonumber(ARGV[at + 5]), {}
  for i = 1, count do
    numbers[i] = ARGV[at + 5 + i]
  end
  replies[#replies + 1] = hold(ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4], numbers)
  at = at + 6 + count
end
return { text(now), unpack(replies) }
