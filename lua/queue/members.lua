#!lua flags=no-writes
-- Reads who stands in line, by position.
--
-- KEYS: generation q:waiting
-- ARGV: generation, first position from 0, how many at most (≤ 500)
-- Reply: {user, score, …}
--
-- uses: guard
local first = tonumber(ARGV[2])
return redis.call('ZRANGE', waiting, first, first + tonumber(ARGV[3]) - 1, 'WITHSCORES')
