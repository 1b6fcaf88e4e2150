#!lua
-- Lays a queue's settings. The caller holds the row lock of the definitions in MySQL, so the newest settings come last.
--
-- KEYS: generation q:settings
-- ARGV: generation, then field and value in turn
-- Reply: 1
--
-- uses: guard
redis.call('HSET', settings, unpack(ARGV, 2))
return 1
