#!lua
-- Publishes which version of a reward may be claimed. The caller holds the row lock of the
-- definitions in MySQL.
--
-- KEYS: epoch rewards
-- ARGV: epoch, reward, version (0: it can no longer be claimed)
-- Reply: 1
--
-- uses: constants guard
if ARGV[3] == '0' then
  redis.call('HDEL', rewards, ARGV[2])
else
  redis.call('HSET', rewards, ARGV[2], ARGV[3])
end
return 1
