#!lua
-- Pays for held reservations in one call, where the server of the queue also has the wallets. The
-- records and events are those that idempotency/bind, payment/begin, wallet/debit and
-- payment/confirm leave. A request that needs another decision changes nothing here and is answered
-- with STEPS: its key is known, its hold has lapsed, its balance is too low, its wallet's
-- partition does not serve, or the same user pays once more in this call.
--
-- KEYS: epoch seq outbox reservations payments q:due q:owners q:bought q:active q:admitted
--   q:holds q:sales q:settings q:turnover
-- EACH: epoch seq outbox wallets idempotency idempotency_due wallet_ops wallet_ops_due tallies
--   s:seats
-- ARGV: epoch, queue, number of schedules, schedule…, number of wallet partitions, then for each
--   partition: epoch, number of requests, then for each request: user, idempotency key, its
--   fingerprint, payment, reservation, ledger entry, expected amount (may be empty)
-- Reply: {code, payment record, reservation record, …} in the order of the requests
-- Codes: 1 PAID 2 STEPS
--
-- uses: constants guard turnover outbox reservation payment sale wallet wallet_operations
--   paid_totals idempotency bulk
local REQUEST_ARGS, FIRST_ATTEMPT = 7, '1'
local schedules = tonumber(ARGV[3])
local partitions = tonumber(ARGV[4 + schedules])
local queue_seq, queue_outbox, queue_events = seq, outbox, events
local wallet_epoch

-- Makes the libraries work on one partition of wallets.
local function select_wallets(nth)
  local at = QUEUE_KEYS + (nth - 1) * WALLET_KEYS
  wallet_epoch, seq, outbox, wallets, idempotency, idempotency_due, wallet_ops, wallet_ops_due,
    tallies = unpack(KEYS, at + 1, at + WALLET_KEYS)
end

-- The requests in their order, and for each partition the first one and whether it serves.
local users, keys, fingerprints, ids, reserved, entries, expected = {}, {}, {}, {}, {}, {}, {}
local firsts, serves, count = {}, {}, 0
local at = 5 + schedules
for nth = 1, partitions do
  select_wallets(nth)
  firsts[nth], serves[nth] = count + 1, redis.call('GET', wallet_epoch) == ARGV[at]
  local last = at + 1 + tonumber(ARGV[at + 1]) * REQUEST_ARGS
  for i = at + 2, last, REQUEST_ARGS do
    count = count + 1
    users[count], keys[count], fingerprints[count], ids[count], reserved[count], entries[count],
      expected[count] = unpack(ARGV, i, i + REQUEST_ARGS - 1)
  end
  at = last + 1
end
firsts[partitions + 1] = count + 1

-- By the name of a schedule: the key of its seats, and what is to be written there.
local seats_of, marks_of = {}, {}
for nth = 1, schedules do
  seats = KEYS[QUEUE_KEYS + partitions * WALLET_KEYS + nth]
  redis.call('HLEN', seats)
  seats_of[ARGV[3 + nth]], marks_of[ARGV[3 + nth]] = seats, {}
end
check_sale()
redis.call('HLEN', payments)
local records = redis.call('HMGET', reservations, unpack(reserved))
local opened = redis.call('HMGET', owners, unpack(users))
local slots = redis.call('HMGET', admitted, unpack(users))
local deadlines = redis.call('ZMSCORE', active, unpack(users))

-- Decides about each request. Nothing is written before all are decided. A plan is the reservation,
-- the payment and what is stored of the user's totals.
local paying = {}
local function plan(i, known, balance, totals)
  local user = users[i]
  if not records[i] or paying[user] or kept_record(known) then
    return nil
  end
  local r = cmsgpack.unpack(records[i])
  if r.user ~= user or r.queue ~= ARGV[2] or r.status ~= 'held' or r.held_until <= now
    or not seats_of[r.schedule] or expected[i] ~= '' and tonumber(expected[i]) ~= r.amount
    or tonumber(balance or '0') < r.amount then
    return nil
  end
  paying[user] = true
  local p = new_attempt(ids[i], r, nil, keys[i], fingerprints[i])
  p.balance_after = tonumber(balance or '0') - r.amount
  return { r = r, p = p, totals = totals }
end
local plans, bound, fields = {}, {}, {}
for i = 1, count do
  bound[i] = users[i] .. keys[i]
end
for nth = 1, partitions do
  select_wallets(nth)
  redis.call('GET', seq)
  redis.call('XLEN', outbox)
  redis.call('HLEN', wallet_ops)
  redis.call('ZCARD', wallet_ops_due)
  redis.call('ZCARD', idempotency_due)
  local first, last = firsts[nth], firsts[nth + 1] - 1
  local known = redis.call('HMGET', idempotency, unpack(bound, first, last))
  local balances = redis.call('HMGET', wallets, unpack(users, first, last))
  local totals = redis.call('HMGET', tallies, unpack(users, first, last))
  for i = first, last do
    local n = i - first + 1
    plans[i] = serves[nth] and plan(i, known[n], balances[n], totals[n])
    if plans[i] then
      fields[#fields + 1] = plans[i].r.concert .. ':' .. users[i]
    end
  end
end
local counts = #fields > 0 and redis.call('HMGET', bought, unpack(fields))

local kept_until, noted_until = text(KEPT_UNTIL), text(now + OPERATION_KEPT_MS)
local function debit_all(first, last)
  local moved, known, known_due, sums, notes, notes_due = {}, {}, {}, {}, {}, {}
  for i = first, last do
    local it = plans[i]
    if it then
      local p, op = it.p, ids[i] .. FIRST_ATTEMPT
      put(known, bound[i], pack_key({ fingerprint = p.fingerprint, thing = p.id }))
      put(known_due, kept_until, bound[i])
      if p.amount > 0 then
        put(moved, p.user, text(p.balance_after))
        entry_event(p.user, entries[i], 'payment', p.amount, p.balance_after,
          attempt_of(op, p.reservation))
      end
      put(sums, p.user, totals_after(it.totals, p.amount, 1))
      put(notes, op, debit_note(p.amount, p.balance_after))
      put(notes_due, noted_until, op)
    end
  end
  write_all('HSET', wallets, moved)
  write_all('HSET', idempotency, known)
  write_all('ZADD', idempotency_due, known_due)
  write_all('HSET', tallies, sums)
  write_all('HSET', wallet_ops, notes)
  write_all('ZADD', wallet_ops_due, notes_due)
end
local replies = {}
local function sell_all()
  -- A wallet in the queue's partition has just added its entry to the same outbox.
  entry_n = tonumber(redis.call('GET', seq) or '0') + 1
  local paid, sold, bought_by, left, empty, ended, freed = {}, {}, {}, {}, {}, {}, {}
  local seat_count, n = 0, 0
  for i = 1, count do
    local it = plans[i]
    if it then
      local p, r = it.p, it.r
      n = n + 1
      mark_sold(p, r)
      local record, reservation = pack_payment(p), cmsgpack.pack(r)
      put(paid, p.id, record)
      put(sold, r.id, reservation)
      local marks, mark = marks_of[r.schedule], r.id .. 's'
      for _, number in ipairs(r.seats) do
        put(marks, number, mark)
      end
      seat_count = seat_count + #r.seats
      put(bought_by, fields[n], text((counts[n] or 0) + #r.seats))
      -- Only the slot under which the seats were held is used up, not a later one of the same user.
      if string.match(slots[i] or '', '^%d+') == r.score then
        count_end(slots[i], deadlines[i])
        freed[#freed + 1] = r.user
      end
      local open = ids_without(opened[i] or '', r.id)
      if open == '' then
        empty[#empty + 1] = r.user
      else
        put(left, r.user, open)
      end
      ended[n] = r.id
      replies[3 * i - 2], replies[3 * i - 1], replies[3 * i] = PAID, record, reservation
    else
      replies[3 * i - 2], replies[3 * i - 1], replies[3 * i] = STEPS, '', ''
    end
  end
  if n == 0 then
    return
  end
  for schedule, marks in pairs(marks_of) do
    seats = seats_of[schedule]
    write_all('HSET', seats, marks)
  end
  redis.call('HINCRBY', sales, 'sold', seat_count)
  write_all('HSET', bought, bought_by)
  write_all('ZREM', active, freed)
  write_all('HDEL', admitted, freed)
  write_all('HSET', owners, left)
  write_all('HDEL', owners, empty)
  write_all('ZREM', holds, ended)
  write_all('HSET', payments, paid)
  write_all('HSET', reservations, sold)
  write_turnover()
end
for nth = 1, partitions + 1 do
  if nth <= partitions then
    select_wallets(nth)
    events = {}
    debit_all(firsts[nth], firsts[nth + 1] - 1)
  else
    seq, outbox, events = queue_seq, queue_outbox, queue_events
    sell_all()
  end
  publish()
end
return replies
