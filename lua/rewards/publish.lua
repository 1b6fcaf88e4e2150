#!lua
-- Publishes which version of a reward may be claimed. The caller holds the row lock of the
-- definitions in MySQL.
--
-- KEYS: epoch rewards
-- ARGV: epoch, reward, version
-- Reply: 1
--
-- uses: constants guard
redis.call('HSET', rewards, ARGV[2], ARGV[3])
return 1
