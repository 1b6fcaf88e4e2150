#!lua
-- Drops a queue that admits to nothing any more: its line, its slots and its counts. Its settings are laid again by whoever asks for it.
--
-- KEYS: epoch q:settings q:active q:admitted q:waiting q:bucket q:concerts q:holds q:owners q:bought q:sales q:due q:left q:used
-- ARGV: epoch
-- Reply: how many keys were there; −3 a payment is under way, nothing was dropped
--
-- uses: constants guard
if redis.call('ZCARD', due) > 0 or redis.call('HLEN', concerts) > 0 then
  return STILL_IN_USE
end
local keys, there = { settings, active, admitted, waiting, bucket, concerts, holds, owners, bought, sales, due, left, used }, 0
for _, key in ipairs(keys) do
  there = there + redis.call('UNLINK', key)
end
return there
