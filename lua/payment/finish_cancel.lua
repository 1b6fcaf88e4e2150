#!lua flags=allow-oom
-- Ends a cancellation once its money is refunded: its seats are free and do not count any more.
-- With the last seats the reservation is cancelled and its payment refunded; before that both stay
-- confirmed. A late call for an earlier cancellation must not end a later one, so the call names
-- the number of the cancellation.
--
-- KEYS: epoch seq outbox reservations payments q:due q:holds q:owners q:bought q:sales s:seats
-- ARGV: epoch, payment, number of the cancellation, from 1
-- Reply: {code, payment record, reservation record, now}: CANCELLED, now or before
-- Codes: 1 CANCELLED 2 NOT_CANCELLING 3 NOT_FOUND
--
-- uses: constants guard outbox reservation payment
redis.call('ZCARD', due)
redis.call('ZCARD', holds)
redis.call('HLEN', owners)
redis.call('HLEN', bought)
redis.call('HLEN', sales)
redis.call('HLEN', seats)

local p, number = load_payment(ARGV[2]), tonumber(ARGV[3])
local r = p and load(p.reservation)
if not r then
  return { NOT_FOUND, '', '', text(now) }
end

local function free(numbers)
  local gone, left = {}, {}
  for i, value in ipairs(redis.call('HMGET', seats, unpack(numbers))) do
    gone[numbers[i]] = true
    if value == r.id .. 's' then
      redis.call('HDEL', seats, numbers[i])
    end
  end
  for _, other in ipairs(r.seats) do
    if not gone[other] then
      left[#left + 1] = other
    end
  end
  r.seats = left
  redis.call('HINCRBY', sales, 'sold', -#numbers)
  if redis.call('HINCRBY', bought, r.concert .. ':' .. r.user, -#numbers) <= 0 then
    redis.call('HDEL', bought, r.concert .. ':' .. r.user)
  end
end

local function finish(cancellation)
  local last = cancellation.last
  p.state, p.refunded, p.cancelling = last and 'refunded' or 'confirmed', cancellation.total, nil
  p.unsettled = not last and p.unsettled or nil
  if refund_due(p) > 0 then
    p.external.refund_due_since = p.external.refund_due_since or now
  end
  payment_event(p)
  save_payment(p)
  if p.unsettled then
    redis.call('ZADD', due, now, p.id)
  else
    redis.call('ZREM', due, p.id)
  end
  free(cancellation.seats)
  r.cancellations = r.cancellations or {}
  r.cancellations[#r.cancellations + 1] = {
    key = cancellation.key, fingerprint = cancellation.fingerprint, seats = cancellation.seats,
    refund = cancellation.refund, at = now,
  }
  end_reservation(r, last and 'cancelled' or 'confirmed')
  publish()
end

if p.state == 'refunding' and p.cancelling.number == number then
  finish(p.cancelling)
end
return { #(r.cancellations or {}) >= number and CANCELLED or NOT_CANCELLING, cmsgpack.pack(p),
  cmsgpack.pack(r), text(now) }
