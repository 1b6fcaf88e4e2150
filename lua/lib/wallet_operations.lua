-- Records of what payments did to wallets: `wallet_ops` maps payment .. attempt to "d" amount ":"
-- balance while debited, and to "t", a tombstone, once refunded or never to be debited; payment ..
-- "c" to "g" amount, which was refunded for cancelled seats, or "l" amount after the last seats.
-- They are kept for OPERATION_KEPT_MS.
-- Gives: attempt_of(op, reservation) → {payment, attempt, reservation}, where the last is a
--   reservation's id, or empty if it is not known; op_of(op) → "d", amount, balance after it | "t"
--   | nil; refunded_of(op) → amount, whether the last seats are cancelled; debit_note(amount,
--   balance) → value; note_op(op, value).
redis.call('ZCARD', wallet_ops_due)
local function attempt_of(op, reservation)
  return { payment = string.sub(op, 1, 16), attempt = tonumber(string.sub(op, 17)),
    reservation = reservation ~= '' and reservation or nil }
end
local function op_of(op)
  local value = redis.call('HGET', wallet_ops, op)
  if not value then
    return nil
  end
  local amount, balance = string.match(value, '^d(%d+):(%d+)$')
  return string.sub(value, 1, 1), tonumber(amount or '0'), tonumber(balance or '0')
end
local function refunded_of(op)
  local word, amount = string.match(redis.call('HGET', wallet_ops, op) or '', '^([gl])(%d+)$')
  return tonumber(amount or '0'), word == 'l'
end
local function debit_note(amount, balance)
  return 'd' .. text(amount) .. ':' .. text(balance)
end
local function note_op(op, value)
  redis.call('HSET', wallet_ops, op, value)
  redis.call('ZADD', wallet_ops_due, now + OPERATION_KEPT_MS, op)
end
