-- Reservations of a partition, each a MessagePack map under its sixteen-byte id: {id, user, queue,
-- concert, schedule, title, starts_at, seats, detail, amount, status, held_until, created_at,
-- score, payment, paid, discount, cancellations, n, at}, where `score` is that of the active slot
-- it was made under, `payment` pays or paid for it, `paid` is what that took, and `cancellations`
-- is a list of {key, fingerprint, seats, refund, at}. `detail` keeps all seats that were held,
-- `seats` has the numbers that are not cancelled. While an external payment
-- waits, `held_until` is the end of its time, and `hold_ends` when the hold ends if it is voided.
-- Statuses: held → released | expired, held → paying → held | expired | confirmed, confirmed →
-- cancelling → confirmed (some seats) | cancelled (the last ones). `n` and `at` are the outbox
-- entry and the time of its end; they decide when the record may be pruned. `owners` has, for each
-- user, the ids of the reservations that are held or being paid, concatenated.
-- Gives: load(id), save(r) → record, live(r) (held and not lapsed, or paying), open_of(user) →
--   records, add_open(user, id), drop_open(user, id), end_wait(r) (no external payment waits any
--   more), end_reservation(r, status) → record.
local function load(id)
  local packed = redis.call('HGET', reservations, id)
  return packed and cmsgpack.unpack(packed) or nil
end
local function save(r)
  local packed = cmsgpack.pack(r)
  redis.call('HSET', reservations, r.id, packed)
  return packed
end
local function live(r)
  return r.status == 'paying' or r.status == 'held' and r.held_until > now
end
local function open_ids(user)
  local ids, list = redis.call('HGET', owners, user) or '', {}
  for at = 1, #ids, 16 do
    list[#list + 1] = string.sub(ids, at, at + 15)
  end
  return list
end
local function open_of(user)
  local records = {}
  for _, id in ipairs(open_ids(user)) do
    local r = load(id)
    if r and live(r) then
      records[#records + 1] = r
    end
  end
  return records
end
local function set_open(user, ids)
  if #ids > 0 then
    redis.call('HSET', owners, user, table.concat(ids))
  else
    redis.call('HDEL', owners, user)
  end
end
local function add_open(user, id)
  local ids = open_ids(user)
  ids[#ids + 1] = id
  set_open(user, ids)
end
local function drop_open(user, id)
  local left = {}
  for _, other in ipairs(open_ids(user)) do
    if other ~= id then
      left[#left + 1] = other
    end
  end
  set_open(user, left)
end
local function reservation_event(r)
  emit('reservation', {
    id = r.id, user = r.user, queue = r.queue, concert = r.concert, schedule = r.schedule,
      seats = r.seats, detail = r.detail,
    amount = r.amount, status = r.status, held_until = r.held_until, created_at = r.created_at,
      at = now,
    score = tonumber(r.score), title = r.title, starts_at = r.starts_at, payment = r.payment,
      paid = r.paid, discount = r.discount, cancellations = r.cancellations,
  })
end
local function end_wait(r)
  r.held_until, r.hold_ends = r.hold_ends or r.held_until, nil
end
local function end_reservation(r, status)
  r.status, r.n, r.at = status, entry_n, now
  drop_open(r.user, r.id)
  redis.call('ZREM', holds, r.id)
  reservation_event(r)
  return save(r)
end
