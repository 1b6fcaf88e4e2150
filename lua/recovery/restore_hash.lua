#!lua
-- Writes fields into a hash: the key that follows those of the header.
--
-- KEYS: epoch
-- ARGV: epoch, field and value in turn (≤ 500 pairs)
-- Reply: how many were new
--
-- uses: constants guard
return redis.call('HSET', KEYS[2], unpack(ARGV, 2))
