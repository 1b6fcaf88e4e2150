#!lua flags=no-writes
-- Reads balances.
--
-- KEYS: generation wallets
-- ARGV: generation, then for each request: user
-- Reply: {balance…} as decimal text
--
-- uses: guard
local replies = {}
for i, balance in ipairs(redis.call('HMGET', wallets, unpack(ARGV, 2))) do
  replies[i] = balance or '0'
end
return replies
