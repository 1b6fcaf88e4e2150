#!lua
-- Deletes idempotency keys and operation records whose retention is over.
--
-- KEYS: epoch idempotency idempotency_due wallet_ops wallet_ops_due
-- ARGV: epoch, how many of each at most (≤ 500)
-- Reply: how many were deleted
--
-- uses: constants guard
local dropped = 0
for _, pair in ipairs({ { idempotency, idempotency_due }, { wallet_ops, wallet_ops_due } }) do
  local fields = redis.call('ZRANGEBYSCORE', pair[2], '-inf', text(now), 'LIMIT', 0,
    tonumber(ARGV[2]))
  if #fields > 0 then
    redis.call('HDEL', pair[1], unpack(fields))
    redis.call('ZREM', pair[2], unpack(fields))
    dropped = dropped + #fields
  end
end
return dropped
