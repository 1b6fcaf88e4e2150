#!lua
-- Lays a queue's settings, forgets how fast the line moved under other ones, and notes since when these hold. The caller holds the row lock of the definitions in MySQL, so the
-- newest settings come last.
--
-- KEYS: generation q:settings q:bucket
-- ARGV: generation, version, then field and value in turn
-- Reply: 1
--
-- uses: guard
if redis.call('HGET', settings, 'version') ~= ARGV[2] then
  redis.call('HDEL', bucket, 'peak')
  redis.call('HSET', bucket, 'since', text(now))
end
redis.call('HSET', settings, 'version', ARGV[2], unpack(ARGV, 3))
return 1
