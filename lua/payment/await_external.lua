#!lua
-- An external payment waits for its provider: the wallet part is debited, what is left is due, and
-- the hold lasts exactly until then. The event makes the wait durable.
--
-- KEYS: epoch seq outbox reservations payments q:due s:seats
-- ARGV: epoch, payment, attempt, balance after the debit (empty: nothing was debited), discount,
--   milliseconds that it may wait
-- Reply: {code, payment record, reservation record}: WAITING, now or before; REFUSED, not this
--   attempt or not pending, see the record
-- Codes: 1 WAITING 2 REFUSED 3 NOT_FOUND
--
-- uses: constants guard outbox reservation payment
redis.call('ZCARD', due)
redis.call('HLEN', seats)

local p = load_payment(ARGV[2])
local r = p and load(p.reservation)
if not r then
  return { NOT_FOUND, '', '' }
end
local function answer(code)
  return { code, cmsgpack.pack(p), cmsgpack.pack(r) }
end
local x = p.external
if p.attempt ~= tonumber(ARGV[3]) or p.state ~= 'pending' or r.status ~= 'paying' or not x then
  return answer(REFUSED)
end
if x.due_at then
  return answer(WAITING)
end

-- After a void the hold ends when it would have ended, but not after the time of the payment.
local function prolong_hold()
  r.hold_ends, r.held_until = math.min(r.held_until, x.due_at), x.due_at
  if r.hold_ends == x.due_at then
    local marks = {}
    for _, number in ipairs(r.seats) do
      marks[#marks + 1], marks[#marks + 2] = number, r.id .. text(x.due_at)
    end
    redis.call('HSET', seats, unpack(marks))
  end
end

p.balance_after, p.discount = tonumber(ARGV[4]), tonumber(ARGV[5])
x.due_amount, x.due_at = p.amount - p.discount - x.wallet_amount, now + tonumber(ARGV[6])
prolong_hold()
local packed, held = save_payment(p), save(r)
emit('pending', {
  id = p.id, reservation = r.id, user = p.user, queue = p.queue, schedule = r.schedule,
  attempt = p.attempt, discount = p.discount, wallet_amount = x.wallet_amount, coupon = p.coupon,
  issue = p.issue, key = p.key, fingerprint = p.fingerprint, created_at = p.created_at,
  due_at = x.due_at, at = now, payment_record = packed, reservation_record = held,
})
redis.call('ZADD', due, x.due_at, p.id)
publish()
return answer(WAITING)
