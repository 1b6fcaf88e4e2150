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
--   records, add_open(user, id), ids_without(ids, id) →
--   the concatenated ids without one, drop_open(user, id), end_wait(r) (no external payment waits any
--   more), mark_ended(r, status) (in the record and as an event),
--   end_reservation(r, status) → record.
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
local function add_open(user, id)
  redis.call('HSET', owners, user, (redis.call('HGET', owners, user) or '') .. id)
end
local function ids_without(ids, id)
  local left = ''
  for at = 1, #ids, 16 do
    local other = string.sub(ids, at, at + 15)
    left = other == id and left or left .. other
  end
  return left
end
local function drop_open(user, id)
  local left = ids_without(redis.call('HGET', owners, user) or '', id)
  if left == '' then
    redis.call('HDEL', owners, user)
  else
    redis.call('HSET', owners, user, left)
  end
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
local function mark_ended(r, status)
  r.status, r.n, r.at = status, entry_n, now
  reservation_event(r)
end
local function end_reservation(r, status)
  mark_ended(r, status)
  drop_open(r.user, r.id)
  redis.call('ZREM', holds, r.id)
  return save(r)
end
