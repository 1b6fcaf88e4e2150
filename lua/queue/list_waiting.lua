#!lua flags=no-writes
-- Reads waiting users by position.
--
-- KEYS: epoch q:waiting
-- ARGV: epoch, first position from 0, how many at most (≤ 500)
-- Reply: {user, score, …}
--
-- uses: constants guard
local first = tonumber(ARGV[2])
return redis.call('ZRANGE', waiting, first, first + tonumber(ARGV[3]) - 1, 'WITHSCORES')
