-- The published settings of a coupon, in `settings`: edition (a new one each time they are
-- published), version, total (empty: unlimited), starts_at, ends_at, discount (the first words of
-- the terms: see src/coupon_terms.rs), valid_seconds and valid_until (empty: no limit).
-- `issues` maps a user to the sixteen bytes of the issue, the time of issue, ":" and the terms:
-- ownership and count are in one key, so they cannot disagree. For half a second after the quota
-- of a sold-out coupon was raised, no more than `held` are issued: see src/coupons/winners.rs. A
-- coupon that is not published ends the script with NOT_PUBLISHED.
-- Gives: edition, version, total, quota (what may be issued now), starts_at, ends_at, terms (of an
--   issue that is made now), count.
local fields = redis.call('HMGET', settings, 'edition', 'total', 'starts_at', 'ends_at',
  'discount', 'valid_seconds', 'valid_until', 'held', 'held_until', 'version')
if not fields[1] then
  return NOT_PUBLISHED
end
local edition, version, total, quota = fields[1], fields[10], tonumber(fields[2]) or math.huge, nil
local starts_at, ends_at, terms = tonumber(fields[3]), tonumber(fields[4]), nil
if fields[6] ~= '' then
  terms = fields[5] .. ':' .. text(now + tonumber(fields[6]) * 1000)
else
  terms = fields[5] .. ':' .. fields[7]
end
local count = redis.call('HLEN', issues)
quota = now < tonumber(fields[9]) and math.min(total, tonumber(fields[8])) or total
