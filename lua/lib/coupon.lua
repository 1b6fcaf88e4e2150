-- A coupon as laid: `settings` edition (another one each time settings are laid), version, total (empty: unlimited), starts_at, ends_at, discount, min_amount.
-- `issues` user → the sixteen bytes of the issue, then the moment of issue: who has one and how many there are, in one key, so that they can't disagree.
-- For half a second after a sold-out coupon's quota was raised, nothing more than `held` is issued: see src/coupons/winners.rs.
-- Gives: edition, version, total, quota (what may be issued now), starts_at, ends_at, discount, min_amount, count. A coupon that is not laid ends the script with −2.
local fields = redis.call('HMGET', settings, 'edition', 'total', 'starts_at', 'ends_at', 'discount', 'min_amount', 'held', 'held_until', 'version')
if not fields[1] then
  return NOT_PUBLISHED
end
local edition, version, total, quota = fields[1], fields[9], tonumber(fields[2]) or math.huge, nil
local starts_at, ends_at = tonumber(fields[3]), tonumber(fields[4])
local discount, min_amount = tonumber(fields[5]), tonumber(fields[6])
local count = redis.call('HLEN', issues)
quota = now < tonumber(fields[8]) and math.min(total, tonumber(fields[7])) or total
