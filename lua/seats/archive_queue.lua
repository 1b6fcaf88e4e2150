#!lua
-- Deletes the state of a queue that no concert uses any more: waiting users, active slots and
-- counts. Its settings are published again when a request needs them.
--
-- KEYS: epoch q:settings q:active q:admitted q:waiting q:bucket q:concerts q:holds q:owners
--   q:bought q:sales q:due q:left q:used
-- ARGV: epoch
-- Reply: how many keys existed; STILL_IN_USE: a payment is in progress or a concert uses the
--   queue, nothing was deleted
--
-- uses: constants guard
if redis.call('ZCARD', due) > 0 or redis.call('HLEN', concerts) > 0 then
  return STILL_IN_USE
end
local keys, there = { settings, active, admitted, waiting, bucket, concerts, holds, owners,
  bought, sales, due, left, used }, 0
for _, key in ipairs(keys) do
  there = there + redis.call('UNLINK', key)
end
return there
