-- What every hold of seats has in common: which user may hold, and what a hold writes. Uses
-- settings, reservation, turnover, bulk, and the codes that the script declares. ARGV 2…11 are queue,
-- concert, schedule, published version and seats of the concert, booking opens at, booking closes
-- at, hold_ms, max seats per user, title of the concert, start of the show. Another version of the
-- concert ends the script with NOT_PUBLISHED. All requests of a call are read at once and written
-- at once: read_users() reads what is known of them, place() collects what is to be written,
-- write() writes it. What is the same for all of them is computed once, because formatting numbers
-- and packing records is slow.
-- Gives: held_until (text); read_users(users); refusal(user, score, count) → code or nil;
--   is_repeated(id, user) → whether this hold exists;
--   owner_of(value of a seat) → user;
--   place(id, user, score, own, numbers), where `own` is a MessagePack map of seats, detail,
--   amount and score; write().
local queue, concert, schedule = ARGV[2], ARGV[3], ARGV[4]
local opens, closes, hold_ms, max_seats = tonumber(ARGV[6]), tonumber(ARGV[7]),
  tonumber(ARGV[8]), tonumber(ARGV[9])
if redis.call('HGET', concerts, concert) ~= ARGV[5] then
  return NOT_PUBLISHED
end
redis.call('ZCARD', active)
redis.call('ZCARD', holds)
redis.call('HLEN', reservations)
local bookable = (not opens or now >= opens) and now < closes
local held_until = text(now + hold_ms)
-- By user: the score of a running slot, whether the user has shown up, the ids of open
-- reservations, and how many seats count towards the limit.
local running, came, open, owned = {}, {}, {}, {}
-- By user: when the visit ends without holds (0: not shown up yet), and when it began (not shown
-- up yet: when the user was promoted).
local bases, visits = {}, {}
local function slot_end(user)
  return tonumber(redis.call('ZSCORE', active, user) or '0')
end
local function read_users(users)
  local fields = {}
  for i, user in ipairs(users) do
    fields[i] = concert .. ':' .. user
  end
  local slots = redis.call('HMGET', admitted, unpack(users))
  local counts = redis.call('HMGET', bought, unpack(fields))
  local ids = redis.call('HMGET', owners, unpack(users))
  for i, user in ipairs(users) do
    local score, base, start = string.match(slots[i] or '', '^(%d+) (%d+) (%d+)$')
    -- A slot outlasts its base only while a hold runs, and ends before it only after a no-show.
    if score and (tonumber(base) > now or slot_end(user) > now) then
      running[user], came[user] = score, base ~= '0'
      bases[user], visits[user] = tonumber(base), tonumber(start)
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
-- By id: the user of a hold that this call made, so it is not yet written.
local made = {}
local function user_of(id)
  local r = not made[id] and load(id)
  return made[id] or r and r.user
end
-- A request with an idempotency key may have made its hold in an earlier call, or in this one.
local function is_repeated(id, user)
  return user_of(id) == user
end
local function owner_of(seat_value)
  return user_of(string.sub(seat_value, 1, 16))
end
local function refusal(user, score, count)
  if running[user] ~= score then
    return redis.call('ZSCORE', waiting, user) == score and WAITING or EXPIRED
  end
  -- A hold keeps its user active, but gives no right to further holds.
  if bases[user] ~= 0 and bases[user] <= now then
    return VISIT_OVER
  end
  if not bookable then
    return NOT_OPEN
  end
  if owned[user] + count > max_seats then
    return LIMIT_EXCEEDED
  end
end
-- A record is one MessagePack map, joined from a part that all requests share and one per request.
-- A map of at most 15 fields is one byte, 0x80 + fields, followed by the fields. A string of at
-- most 31 bytes is one byte, 0xa0 + length, followed by the bytes. cmsgpack writes the same bytes.
local function map_head(fields)
  return string.char(0x80 + fields)
end
local function short_string(bytes)
  return string.char(0xa0 + #bytes) .. bytes
end
local function fields_of(packed_map)
  return string.byte(packed_map) - 0x80, string.sub(packed_map, 2)
end
local ID_LENGTH, OWN_FIELDS = 16, 4
local shared_fields, shared = fields_of(cmsgpack.pack({
  queue = queue, concert = concert, schedule = schedule, status = 'held',
  held_until = now + hold_ms, created_at = now, title = ARGV[10], starts_at = tonumber(ARGV[11]),
}))
-- The id and the user are the two other fields.
local before_id = map_head(shared_fields + OWN_FIELDS + 2) .. shared
  .. short_string('id') .. string.char(0xa0 + ID_LENGTH)
local before_user = short_string('user') .. string.char(0xa0 + ID_LENGTH)
local marks, records, opened, lapses, slots, shown, placed = {}, {}, {}, {}, {}, {}, 0
local shown_ends = visit_end(now)
local shown_base = text(shown_ends)
local shown_until = shown_ends > now + hold_ms and shown_base or held_until
local function place(id, user, score, own, numbers)
  local mark, at = id .. held_until, #marks
  for i, number in ipairs(numbers) do
    marks[at + 2 * i - 1], marks[at + 2 * i] = number, mark
  end
  local slot_until = held_until
  -- A promoted user who holds has shown up; a hold keeps the slot open until it ends.
  if not came[user] then
    slot_until, came[user] = shown_until, true
    count_show_up(visits[user])
    shown[#shown + 1], shown[#shown + 2] = user, score .. ' ' .. shown_base .. ' ' .. text(now)
    bases[user], visits[user] = shown_ends, now
  elseif sliding then
    local ends = math.max(bases[user], visit_end(visits[user]))
    if ends > bases[user] then
      bases[user] = ends
      shown[#shown + 1] = user
      shown[#shown + 1] = score .. ' ' .. text(ends) .. ' ' .. text(visits[user])
    end
    slot_until = text(math.max(ends, now + hold_ms))
  end
  open[user], owned[user] = open[user] .. id, owned[user] + #numbers
  local first, second = placed + 1, placed + 2
  records[first], records[second] = id, before_id .. id .. before_user .. user .. string.sub(own, 2)
  opened[first], opened[second] = user, open[user]
  lapses[first], lapses[second] = held_until, id
  slots[first], slots[second] = slot_until, user
  placed, made[id] = second, user
end
local function write()
  write_all('HSET', seats, marks)
  write_all('HSET', reservations, records)
  write_all('HSET', admitted, shown)
  write_all('HSET', owners, opened)
  write_all('ZADD', holds, lapses)
  if placed > 0 then
    redis.call('ZADD', active, 'GT', unpack(slots))
  end
  write_turnover()
end
