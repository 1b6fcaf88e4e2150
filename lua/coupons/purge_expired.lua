#!lua
-- Deletes tombstones whose retention is over.
--
-- KEYS: epoch coupon_ops coupon_ops_due
-- ARGV: epoch, how many at most (≤ 500)
-- Reply: how many were deleted
--
-- uses: constants guard
local ops = redis.call('ZRANGEBYSCORE', coupon_ops_due, '-inf', text(now), 'LIMIT', 0,
  tonumber(ARGV[2]))
if #ops > 0 then
  redis.call('HDEL', coupon_ops, unpack(ops))
  redis.call('ZREM', coupon_ops_due, unpack(ops))
end
return #ops
