-- Sells the seats of a paid reservation. Uses turnover, outbox, reservation and payment.
-- Gives: check_sale() fails on keys of a wrong type while nothing is written yet; mark_sold(p, r)
--   (in the records and as events, where `p` was paid and `r` is sold); sell(p, r) → payment
--   record, reservation record. Call write_turnover() and publish() after it.
local function check_sale()
  redis.call('ZCARD', due)
  redis.call('ZCARD', holds)
  redis.call('HLEN', owners)
  redis.call('HLEN', bought)
  redis.call('ZCARD', active)
  redis.call('HLEN', admitted)
  redis.call('HLEN', sales)
  redis.call('HLEN', seats)
end
local function mark_sold(p, r)
  -- A coupon that takes nothing off was not reserved, so the payment does not keep it.
  if p.discount == 0 then
    p.issue, p.coupon = nil, nil
  end
  p.state, p.unsettled = 'confirmed', p.issue and true or nil
  payment_event(p)
  r.payment, r.paid, r.discount = p.id, p.amount - p.discount, p.discount
  end_wait(r)
  mark_ended(r, 'confirmed')
end
local function sell(p, r)
  mark_sold(p, r)
  -- With a coupon the payment stays due until the coupon is marked as used.
  if p.unsettled then
    redis.call('ZADD', due, 'LT', now + 10000, p.id)
  else
    redis.call('ZREM', due, p.id)
  end
  local marks = {}
  for _, number in ipairs(r.seats) do
    marks[#marks + 1], marks[#marks + 2] = number, r.id .. 's'
  end
  redis.call('HSET', seats, unpack(marks))
  redis.call('HINCRBY', sales, 'sold', #r.seats)
  redis.call('HINCRBY', bought, r.concert .. ':' .. r.user, #r.seats)
  -- Only the slot under which the seats were held is used up, not a later one of the same user.
  if string.match(redis.call('HGET', admitted, r.user) or '', '^%d+') == r.score then
    vacate(r.user)
  end
  drop_open(r.user, r.id)
  redis.call('ZREM', holds, r.id)
  return save_payment(p), save(r)
end
