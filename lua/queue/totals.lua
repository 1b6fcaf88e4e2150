#!lua flags=no-writes
-- Counts the users and the bookings of a queue.
--
-- KEYS: epoch q:waiting q:active q:holds q:due
-- ARGV: epoch
-- Reply: {waiting users, active users, holds that have not lapsed, payments and cancellations in
--   progress}
--
-- uses: constants guard
local after_now = '(' .. text(now)
return { redis.call('ZCARD', waiting), redis.call('ZCOUNT', active, after_now, '+inf'),
  redis.call('ZCOUNT', holds, after_now, '+inf'), redis.call('ZCARD', due) }
