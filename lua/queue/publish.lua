#!lua
-- Publishes the settings of a queue and records since when they apply. With new settings the peak
-- rate of the queue restarts at the rate of the last 30 seconds. The caller holds the row lock of
-- the definitions in MySQL, so the newest settings come last.
--
-- KEYS: epoch q:settings q:bucket
-- ARGV: epoch, version, then field and value in turn
-- Reply: 1
--
-- uses: constants guard admission_rate
if redis.call('HGET', settings, 'version') ~= ARGV[2] then
  redis.call('HSET', bucket, 'peak', text((recent())), 'since', text(now))
end
redis.call('HSET', settings, 'version', ARGV[2], unpack(ARGV, 3))
return 1
