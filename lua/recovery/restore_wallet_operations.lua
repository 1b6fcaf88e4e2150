#!lua
-- Restores the records of what payments did to wallets, in any order: a tombstone replaces a
-- debit.
--
-- KEYS: epoch wallet_ops wallet_ops_due
-- ARGV: epoch, then for each operation: id (payment and attempt), value, when it happened
-- Reply: 1
--
-- uses: constants guard wallet_operations
for i = 2, #ARGV, 3 do
  local is_debit = string.sub(ARGV[i + 1], 1, 1) == 'd'
  redis.call(is_debit and 'HSETNX' or 'HSET', wallet_ops, ARGV[i], ARGV[i + 1])
  redis.call('ZADD', wallet_ops_due, tonumber(ARGV[i + 2]) + OPERATION_KEPT_MS, ARGV[i])
end
return 1
