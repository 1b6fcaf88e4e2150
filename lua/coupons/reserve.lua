#!lua
-- Reserves issues for attempts of payments before money is debited, so that no other payment can
-- use them meanwhile. The discount is fixed here, once for each attempt.
--
-- KEYS: epoch c:settings c:issues c:uses coupon_ops
-- ARGV: epoch, then for each request: user, issue, payment, attempt, amount
-- Reply: {{code, discount}…}: RESERVED, now or before; NOT_APPLICABLE, the issue is not the
--   user's, in use or used, or the amount is too small; TOMBSTONE, the attempt returned it
--   before; or NOT_PUBLISHED
-- Codes: 1 RESERVED 2 NOT_APPLICABLE 3 TOMBSTONE
--
-- uses: constants guard coupon redemption
redis.call('HLEN', uses)
redis.call('HLEN', coupon_ops)

local function take(user, issue, payment, attempt, amount)
  local record = use_of(issue)
  if record and is_by(record, payment, attempt) then
    return { RESERVED, text(record.discount) }
  end
  if is_ended(issue, payment, attempt) then
    return { TOMBSTONE, '0' }
  end
  if record or amount < min_amount or not issued_at_of(user, issue) then
    return { NOT_APPLICABLE, '0' }
  end
  local off = math.min(discount, amount)
  save_use(issue, { payment = payment, attempt = attempt, discount = off })
  return { RESERVED, text(off) }
end

local replies = {}
for i = 2, #ARGV, 5 do
  replies[#replies + 1] = take(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3],
    tonumber(ARGV[i + 4]))
end
return replies
