#!lua flags=allow-oom
-- Ends the cancellation of a reservation once its money is refunded: its seats are free and do
-- not count any more, its payment is refunded.
--
-- KEYS: epoch seq outbox reservations payments q:due q:holds q:owners q:bought q:sales s:seats
-- ARGV: epoch, payment
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

local p = load_payment(ARGV[2])
local r = p and load(p.reservation)
if not r then
  return { NOT_FOUND, '', '', text(now) }
end
if p.state == 'refunding' then
  p.state = 'refunded'
  payment_event(p)
  save_payment(p)
  redis.call('ZREM', due, p.id)
  for i, value in ipairs(redis.call('HMGET', seats, unpack(r.seats))) do
    if value == r.id .. 's' then
      redis.call('HDEL', seats, r.seats[i])
    end
  end
  redis.call('HINCRBY', sales, 'sold', -#r.seats)
  if redis.call('HINCRBY', bought, r.concert .. ':' .. r.user, -#r.seats) <= 0 then
    redis.call('HDEL', bought, r.concert .. ':' .. r.user)
  end
  end_reservation(r, 'cancelled')
  publish()
end
return { p.state == 'refunded' and CANCELLED or NOT_CANCELLING, cmsgpack.pack(p),
  cmsgpack.pack(r), text(now) }
