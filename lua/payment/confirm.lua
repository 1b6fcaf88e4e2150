#!lua flags=allow-oom
-- The commit point of a payment: pending → confirmed. The seats are sold, and the active slot
-- under which they were held is used up. An attempt that is being voided or is not the current
-- one confirms nothing. A coupon that takes nothing off was not reserved, so the payment does not
-- keep it.
--
-- KEYS: epoch seq outbox reservations payments q:due q:owners q:bought q:active q:admitted
--   q:holds q:sales q:settings q:turnover s:seats
-- ARGV: epoch, then for each request: payment, attempt, balance after the debit, discount
-- Reply: {{code, payment record, reservation record}…}: CONFIRMED, now or before; REFUSED, not
--   this attempt, see the record
-- Codes: 1 CONFIRMED 2 REFUSED 3 NOT_FOUND
--
-- uses: constants guard turnover outbox reservation payment
redis.call('ZCARD', due)
redis.call('ZCARD', holds)
redis.call('HLEN', owners)
redis.call('HLEN', bought)
redis.call('ZCARD', active)
redis.call('HLEN', admitted)
redis.call('HLEN', sales)
redis.call('HLEN', seats)

local function sell(p, r)
  if p.discount == 0 then
    p.issue, p.coupon = nil, nil
  end
  p.state, p.unsettled = 'confirmed', p.issue and true or nil
  payment_event(p)
  -- With a coupon the payment stays due until the coupon is marked as used.
  if not p.unsettled then
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
  r.payment, r.paid, r.discount = p.id, p.amount - p.discount, p.discount
  return save_payment(p), end_reservation(r, 'confirmed')
end

local replies = {}
for i = 2, #ARGV, 4 do
  local p = load_payment(ARGV[i])
  local r = p and load(p.reservation)
  local reply = { NOT_FOUND, '', '' }
  if r then
    local same = p.attempt == tonumber(ARGV[i + 1])
    if same and p.state == 'pending' and r.status == 'paying' then
      p.balance_after, p.discount = tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3])
      reply = { CONFIRMED, sell(p, r) }
    else
      reply = { same and p.state == 'confirmed' and CONFIRMED or REFUSED, cmsgpack.pack(p),
        cmsgpack.pack(r) }
    end
  end
  replies[#replies + 1] = reply
end
write_turnover()
publish()
return replies
