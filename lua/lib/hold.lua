-- What every hold of seats has in common: who may hold, and what a hold writes. Uses settings, reservation.
-- ARGV 2…9 are queue, concert, schedule, version and seats of the concert as laid, booking opens at, booking closes at (empty: never), hold_ms, max seats a user.
-- Another version of the concert than is laid here ends the script with −2.
-- All requests of a call are read at once and written at once: meet(users) reads what stands of them, place() keeps what it writes, write() writes it. What is
-- the same for all of them is made once: numbers become text slowly, and so do records.
-- Gives: HELD, TAKEN, LIMIT_EXCEEDED, NOT_OPEN, WAITING, EXPIRED; held_until (text); meet(users); refusal(user, score, count) → code or nil;
-- place(id, user, score, own, numbers), where `own` is a MessagePack map of seats, detail, amount and score; write().
local queue, concert, schedule = ARGV[2], ARGV[3], ARGV[4]
local opens, closes, hold_ms, max_seats = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
if redis.call('HGET', concerts, concert) ~= ARGV[5] then
  return NOT_PUBLISHED
end
redis.call('ZCARD', active)
redis.call('ZCARD', holds)
redis.call('HLEN', reservations)
local bookable = (not opens or now >= opens) and (not closes or now < closes)
local held_until = text(now + hold_ms)
-- By user: the score of a running slot, whether it was shown up for, the ids of what is open, and how many seats count towards the limit.
local running, came, open, owned = {}, {}, {}, {}
local function meet(users)
  local fields = {}
  for i, user in ipairs(users) do
    fields[i] = concert .. ':' .. user
  end
  local slots = redis.call('HMGET', admitted, unpack(users))
  local counts, ids = redis.call('HMGET', bought, unpack(fields)), redis.call('HMGET', owners, unpack(users))
  for i, user in ipairs(users) do
    local score, base = string.match(slots[i] or '', '^(%d+) (%d+)$')
    -- A slot outlives its base only while something is held, and ends before it only if nobody showed up.
    if score and (tonumber(base) > now or tonumber(redis.call('ZSCORE', active, user) or '0') > now) then
      running[user], came[user] = score, base ~= '0'
    end
    local count, all = tonumber(counts[i] or '0'), ids[i] or ''
    for at = 1, #all, 16 do
      local r = load(string.sub(all, at, at + 15))
      if r and live(r) and r.concert == concert then
        count = count + #r.seats
      end
    end
    open[user], owned[user] = all, count
  end
end
local function refusal(user, score, count)
  if running[user] ~= score then
    return redis.call('ZSCORE', waiting, user) == score and WAITING or EXPIRED
  end
  if not bookable then
    return NOT_OPEN
  end
  if owned[user] + count > max_seats then
    return LIMIT_EXCEEDED
  end
end
-- A record is joined from maps: up to fifteen fields are a byte that counts them and then the fields, one after the other. Before sixteen bytes stands 0xb0.
local common = cmsgpack.pack({
  queue = queue, concert = concert, schedule = schedule, status = 'held', held_until = now + hold_ms, created_at = now,
})
common = string.char(0x80 + 12) .. string.sub(common, 2) .. '\162id\176'
local USER = '\164user\176'
local marks, records, opened, lapses, slots, shown, placed = {}, {}, {}, {}, {}, {}, 0
local shown_base = text(now + active_ms)
local shown_until = active_ms > hold_ms and shown_base or held_until
local function place(id, user, score, own, numbers)
  local mark, at = id .. held_until, #marks
  for i, number in ipairs(numbers) do
    marks[at + 2 * i - 1], marks[at + 2 * i] = number, mark
  end
  local slot_until = held_until
  -- A promoted user who holds has shown up; a hold keeps the slot open until it ends.
  if not came[user] then
    slot_until, came[user] = shown_until, true
    shown[#shown + 1], shown[#shown + 2] = user, score .. ' ' .. shown_base
  end
  open[user], owned[user] = open[user] .. id, owned[user] + #numbers
  local first, second = placed + 1, placed + 2
  records[first], records[second] = id, common .. id .. USER .. user .. string.sub(own, 2)
  opened[first], opened[second] = user, open[user]
  lapses[first], lapses[second] = held_until, id
  slots[first], slots[second] = slot_until, user
  placed = second
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
  if placed > 0 then
    redis.call('ZADD', active, 'GT', unpack(slots))
  end
end
