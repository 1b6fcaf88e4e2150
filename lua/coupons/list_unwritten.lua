#!lua flags=allow-oom
-- Lists the coupons of a partition of which MySQL may lack issues or uses, and forgets the others.
--
-- KEYS: epoch written coupon_entries
-- ARGV: epoch
-- Reply: {coupon…}
--
-- uses: constants guard
local through, coupons, settled = tonumber(redis.call('GET', written) or '0'), {}, {}
local entries = redis.call('HGETALL', coupon_entries)
for i = 1, #entries, 2 do
  local list = tonumber(entries[i + 1]) > through and coupons or settled
  list[#list + 1] = entries[i]
end
if #settled > 0 then
  redis.call('HDEL', coupon_entries, unpack(settled, 1, math.min(#settled, 500)))
end
return coupons
