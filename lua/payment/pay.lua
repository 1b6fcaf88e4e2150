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
--   paid_totals debit idempotency
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

local seats_of = {}
for nth = 1, schedules do
  seats = KEYS[QUEUE_KEYS + partitions * WALLET_KEYS + nth]
  redis.call('HLEN', seats)
  seats_of[ARGV[3 + nth]] = seats
end
check_sale()
redis.call('HLEN', payments)

-- Decides about each request. Nothing is written before all are decided.
local paying = {}
local function plan(user, key, fingerprint, id, reservation, entry, expected)
  local r = not paying[user] and load(reservation)
  if not r or r.user ~= user or r.queue ~= ARGV[2] or r.status ~= 'held' or r.held_until <= now
    or not seats_of[r.schedule] or expected ~= '' and tonumber(expected) ~= r.amount
    or recall(user, key) then
    return nil
  end
  local balance = balance_of(user)
  if balance < r.amount then
    return nil
  end
  paying[user] = true
  return { r = r, key = key, fingerprint = fingerprint, id = id, entry = entry, balance = balance }
end
local plans, count = {}, 0
local first_plan = {}
local at = 5 + schedules
for nth = 1, partitions do
  select_wallets(nth)
  local serves = redis.call('GET', wallet_epoch) == ARGV[at]
  redis.call('GET', seq)
  redis.call('XLEN', outbox)
  redis.call('HLEN', wallets)
  redis.call('HLEN', wallet_ops)
  redis.call('ZCARD', wallet_ops_due)
  redis.call('HLEN', tallies)
  redis.call('ZCARD', idempotency_due)
  first_plan[nth] = count + 1
  local last = at + 1 + tonumber(ARGV[at + 1]) * REQUEST_ARGS
  for i = at + 2, last, REQUEST_ARGS do
    count = count + 1
    plans[count] = serves and plan(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4],
      ARGV[i + 5], ARGV[i + 6])
  end
  at = last + 1
end
first_plan[partitions + 1] = count + 1

local function debit_all(from, to)
  for i = from, to do
    local it = plans[i]
    if it then
      remember(it.r.user, it.key, { fingerprint = it.fingerprint, thing = it.id })
      it.balance_after = take(it.r.user, it.id .. FIRST_ATTEMPT, it.entry, it.r.amount,
        it.balance, it.r.id)
    end
  end
end
local replies = {}
local function confirm_all()
  -- A wallet in the queue's partition has just added its entry to the same outbox.
  entry_n = tonumber(redis.call('GET', seq) or '0') + 1
  for i = 1, count do
    local it = plans[i]
    if it then
      local p = new_attempt(it.id, it.r, nil, it.key, it.fingerprint)
      p.balance_after, seats = it.balance_after, seats_of[it.r.schedule]
      replies[3 * i - 2] = PAID
      replies[3 * i - 1], replies[3 * i] = sell(p, it.r)
    else
      replies[3 * i - 2], replies[3 * i - 1], replies[3 * i] = STEPS, '', ''
    end
  end
end
for nth = 1, partitions + 1 do
  if nth <= partitions then
    select_wallets(nth)
    events = {}
    debit_all(first_plan[nth], first_plan[nth + 1] - 1)
  else
    seq, outbox, events = queue_seq, queue_outbox, queue_events
    confirm_all()
    write_turnover()
  end
  publish()
end
return replies
