-- The published settings of a coupon, in `settings`: edition (a new one each time they are
-- published), version, total (empty: unlimited), starts_at, ends_at, discount, min_amount.
-- `issues` maps a user to the sixteen bytes of the issue, then the time of issue: ownership and
-- count are in one key, so they cannot disagree. For half a second after the quota of a sold-out
-- coupon was raised, no more than `held` are issued: see src/coupons/winners.rs. A coupon that is
-- not published ends the script with NOT_PUBLISHED.
-- Gives: edition, version, total, quota (what may be issued now), starts_at, ends_at, discount,
--   min_amount, count.
local fields = redis.call('HMGET', settings, 'edition', 'total', 'starts_at', 'ends_at',
  'discount', 'min_amount', 'held', 'held_until', 'version')
if not fields[1] then
  return NOT_PUBLISHED
end
local edition, version, total, quota = fields[1], fields[9], tonumber(fields[2]) or math.huge, nil
local starts_at, ends_at = tonumber(fields[3]), tonumber(fields[4])
local discount, min_amount = tonumber(fields[5]), tonumber(fields[6])
local count = redis.call('HLEN', issues)
quota = now < tonumber(fields[8]) and math.min(total, tonumber(fields[7])) or total
