#!lua flags=allow-oom
-- Lists the coupons of a partition of which MySQL may lack issues or uses, and forgets the others.
--
-- KEYS: epoch written coupon_entries
-- ARGV: epoch
-- Reply: {coupon…}
--
-- uses: constants guard
local through, coupons, settled = tonumber(redis.call('GET', written) or '0'), {}, {}
local cursor = '0'
repeat
  local page = redis.call('HSCAN', coupon_entries, cursor, 'COUNT', 500)
  local entries = page[2]
  cursor = page[1]
  for i = 1, #entries, 2 do
    local list = tonumber(entries[i + 1]) > through and coupons or settled
    list[#list + 1] = entries[i]
  end
until cursor == '0'
if #settled > 0 then
  redis.call('HDEL', coupon_entries, unpack(settled, 1, math.min(#settled, 500)))
end
return coupons
