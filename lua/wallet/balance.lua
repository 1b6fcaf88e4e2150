#!lua flags=no-writes
-- Reads balances.
--
-- KEYS: epoch wallets
-- ARGV: epoch, then for each request: user
-- Reply: {balance…} as decimal text
--
-- uses: constants guard
local replies = {}
for i, balance in ipairs(redis.call('HMGET', wallets, unpack(ARGV, 2))) do
  replies[i] = balance or '0'
end
return replies
