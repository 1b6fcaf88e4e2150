#!lua
-- Reserves issues for attempts of payments before money is debited, so that no other payment can
-- use them meanwhile. The discount is fixed here, once for each attempt, by the terms of the
-- issue. An issue that takes nothing off is not reserved, so it is not used up.
--
-- KEYS: epoch c:issues c:uses coupon_ops
-- ARGV: epoch, then for each request: user, issue, payment, attempt, amount
-- Reply: {{code, discount}…}: RESERVED, now or before; NOT_APPLICABLE, the issue is not the
--   user's, in use or used, or the amount is too small; TOMBSTONE, the attempt returned it
--   before; EXPIRED, the issue is not valid any more
-- Codes: 1 RESERVED 2 NOT_APPLICABLE 3 TOMBSTONE 4 EXPIRED
--
-- uses: constants guard coupon_issue redemption
redis.call('HLEN', uses)
redis.call('HLEN', coupon_ops)

-- The share of an amount below 2^53 in percent, rounded down. The product with the whole amount
-- would not be exact.
local function share_of(amount, percent)
  local rest = amount % 100
  return (amount - rest) / 100 * percent + math.floor(rest * percent / 100)
end

local function take(user, issue, payment, attempt, amount)
  local record = use_of(issue)
  if record and is_by(record, payment, attempt) then
    return { RESERVED, text(record.discount) }
  end
  if is_ended(issue, payment, attempt) then
    return { TOMBSTONE, '0' }
  end
  local issued_at, terms = issue_of(user, issue)
  if record or not issued_at then
    return { NOT_APPLICABLE, '0' }
  end
  local kind, value, limit, least, valid_until =
    string.match(terms, '^(%a+):(%d+):(%d*):(%d+):(%d*)$')
  if valid_until ~= '' and now >= tonumber(valid_until) then
    return { EXPIRED, '0' }
  end
  if amount < tonumber(least) then
    return { NOT_APPLICABLE, '0' }
  end
  local off = tonumber(value)
  if kind == 'percent' then
    off = math.min(share_of(amount, off), tonumber(limit) or math.huge)
  end
  off = math.min(off, amount)
  if off > 0 then
    save_use(issue, { payment = payment, attempt = attempt, discount = off })
  end
  return { RESERVED, text(off) }
end

local replies = {}
for i = 2, #ARGV, 5 do
  replies[#replies + 1] = take(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3],
    tonumber(ARGV[i + 4]))
end
return replies
