#!lua
-- Opens the window in which a queue is restored from its tokens (see lib/queue_restore.lua), and
-- restores how many users were admitted. New arrivals get places behind all earlier ones. For one
-- interval no user is admitted, because the last admissions are not known.
--
-- KEYS: epoch q:bucket
-- ARGV: epoch, how many were admitted, the window in milliseconds, how many arrivals to assume,
--   admissions per interval, the last score whose slot is over, the score below which places are
--   from before the loss
-- Reply: 1
--
-- uses: constants guard
redis.call('HSET', bucket, 'admitted', ARGV[2], 'joined', ARGV[4], 'log',
  text(now) .. ':' .. ARGV[5],
  'restore_until', text(now + tonumber(ARGV[3])), 'restore_below',
    ARGV[7], 'restore_above', ARGV[6])
return 1
