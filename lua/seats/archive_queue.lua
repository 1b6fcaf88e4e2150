#!lua
-- Deletes the state of a queue that no concert uses any more: waiting users, active slots and
-- counts. Its settings are published again when a request needs them.
--
-- KEYS: epoch q:settings q:active q:admitted q:waiting q:bucket q:concerts q:holds q:owners
--   q:bought q:sales q:due q:left q:used q:turnover q:heard
-- ARGV: epoch
-- Reply: how many keys existed; STILL_IN_USE: a payment is in progress or a concert uses the
--   queue, nothing was deleted
--
-- uses: constants guard
if redis.call('ZCARD', due) > 0 or redis.call('HLEN', concerts) > 0 then
  return STILL_IN_USE
end
-- A later use of the queue continues the sequence of places: MySQL keeps the promotions, and a loss
-- of Redis compares places with them.
local joined = redis.call('HGET', bucket, 'joined')
local keys, there = { settings, active, admitted, waiting, bucket, concerts, holds, owners,
  bought, sales, due, left, used, turnover, heard }, 0
for _, key in ipairs(keys) do
  there = there + redis.call('UNLINK', key)
end
if joined then
  redis.call('HSET', bucket, 'joined', joined)
end
return there
