-- Records of what payments did to wallets: `wallet_ops` maps payment .. attempt to "d" amount ":"
-- balance while debited, and to "t", a tombstone, once refunded or never to be debited; payment
-- .. "c" → "g" once refunded for a cancelled reservation. They are kept for OPERATION_KEPT_MS.
-- Gives: attempt_of(op) → {payment, attempt}; op_of(op) → "d", amount, balance after it | "t" |
--   nil; note_op(op, value).
redis.call('ZCARD', wallet_ops_due)
local function attempt_of(op)
  return { payment = string.sub(op, 1, 16), attempt = tonumber(string.sub(op, 17)) }
end
local function op_of(op)
  local value = redis.call('HGET', wallet_ops, op)
  if not value then
    return nil
  end
  local amount, balance = string.match(value, '^d(%d+):(%d+)$')
  return string.sub(value, 1, 1), tonumber(amount or '0'), tonumber(balance or '0')
end
local function note_op(op, value)
  redis.call('HSET', wallet_ops, op, value)
  redis.call('ZADD', wallet_ops_due, now + OPERATION_KEPT_MS, op)
end
