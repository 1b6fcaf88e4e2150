-- What every hold of seats has in common: who may hold, and what a hold writes. Uses settings, reservation.
-- ARGV 2…9 are queue, concert, schedule, version and seats of the concert as laid, booking opens at, booking closes at (empty: never), hold_ms, max seats a user.
-- Another version of the concert than is laid here ends the script with −2.
-- All requests of a call are read at once and written at once: meet(users) reads what stands of them, place() keeps what it writes, write() writes it.
-- Gives: HELD, TAKEN, LIMIT, NOT_OPEN, WAITING, EXPIRED; meet(users); refusal(user, score, count) → code or nil;
-- place(id, user, score, amount, detail, numbers) → held_until (text); write().
local HELD, TAKEN, LIMIT, NOT_OPEN, WAITING, EXPIRED = 1, 2, 3, 4, 5, 6
local queue, concert, schedule = ARGV[2], ARGV[3], ARGV[4]
local opens, closes, hold_ms, max_seats = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
if redis.call('HGET', concerts, concert) ~= ARGV[5] then
  return -2
end
redis.call('ZCARD', holds)
redis.call('HLEN', reservations)
local bookable = (not opens or now >= opens) and (not closes or now < closes)
local known = {}
local function meet(users)
  local fields = {}
  for i, user in ipairs(users) do
    fields[i] = concert .. ':' .. user
  end
  local slots, deadlines = redis.call('HMGET', admitted, unpack(users)), redis.call('ZMSCORE', active, unpack(users))
  local owned, open = redis.call('HMGET', bought, unpack(fields)), redis.call('HMGET', owners, unpack(users))
  for i, user in ipairs(users) do
    local score, base = string.match(slots[i] or '', '^(%d+) (%d+)$')
    local one = { deadline = tonumber(deadlines[i] or '0'), base = tonumber(base or '0'), open = open[i] or '', seats = tonumber(owned[i] or '0') }
    one.score = one.deadline > now and score or nil
    for at = 1, #one.open, 16 do
      local r = load(string.sub(one.open, at, at + 15))
      if r and live(r) and r.concert == concert then
        one.seats = one.seats + #r.seats
      end
    end
    known[user] = one
  end
end
local function refusal(user, score, count)
  local one = known[user]
  if one.score ~= score then
    return redis.call('ZSCORE', waiting, user) == score and WAITING or EXPIRED
  end
  if not bookable then
    return NOT_OPEN
  end
  if one.seats + count > max_seats then
    return LIMIT
  end
end
local function add(list, one, other)
  list[#list + 1], list[#list + 2] = one, other
end
local marks, records, shown, opened, lapses, slots = {}, {}, {}, {}, {}, {}
local function place(id, user, score, amount, detail, numbers)
  local one, until_text = known[user], text(now + hold_ms)
  for _, number in ipairs(numbers) do
    add(marks, number, id .. until_text)
  end
  add(records, id, cmsgpack.pack({
    id = id, user = user, queue = queue, concert = concert, schedule = schedule, seats = numbers, detail = detail, amount = amount,
    status = 'held', held_until = now + hold_ms, created_at = now, score = score,
  }))
  -- A promoted user who holds has shown up; a hold keeps the slot open until it ends.
  if one.base == 0 then
    one.deadline = now + active_ms
    one.base = one.deadline
    add(shown, user, score .. ' ' .. text(one.base))
  end
  one.deadline, one.open, one.seats = math.max(one.deadline, now + hold_ms), one.open .. id, one.seats + #numbers
  add(opened, user, one.open)
  add(lapses, until_text, id)
  add(slots, text(one.deadline), user)
  return until_text
end
local function write_pairs(command, key, list)
  for at = 1, #list, 500 do
    redis.call(command, key, unpack(list, at, math.min(at + 499, #list)))
  end
end
local function write()
  write_pairs('HSET', seats, marks)
  write_pairs('HSET', reservations, records)
  write_pairs('HSET', admitted, shown)
  write_pairs('HSET', owners, opened)
  write_pairs('ZADD', holds, lapses)
  write_pairs('ZADD', active, slots)
end
