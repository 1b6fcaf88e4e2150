#!lua
-- Lays a queue's settings, and forgets how fast the line moved under other ones. The caller holds the row lock of the definitions in MySQL, so the
-- newest settings come last.
--
-- KEYS: generation q:settings q:bucket
-- ARGV: generation, version, then field and value in turn
-- Reply: 1
--
-- uses: guard
if redis.call('HGET', settings, 'version') ~= ARGV[2] then
  redis.call('HDEL', bucket, 'peak')
end
redis.call('HSET', settings, 'version', ARGV[2], unpack(ARGV, 3))
return 1
