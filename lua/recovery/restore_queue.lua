#!lua
-- Opens the window in which a queue is restored from its tokens (see lib/queue_restore.lua), and
-- restores how many users were admitted. New arrivals get places behind all earlier ones. For one
-- interval no user is admitted, because the last admissions are not known.
--
-- KEYS: epoch busy q:bucket
-- ARGV: epoch, queue, how many were admitted, the window in milliseconds, how many arrivals to
--   assume, admissions per interval, the last score whose slot is over, the score below which
--   places are from before the loss
-- Reply: 1
--
-- uses: constants guard
redis.call('HSETNX', busy, ARGV[2], '')
redis.call('HSET', bucket, 'admitted', ARGV[3], 'joined', ARGV[5], 'log',
  text(now) .. ':' .. ARGV[6],
  'restore_until', text(now + tonumber(ARGV[4])), 'restore_below',
    ARGV[8], 'restore_above', ARGV[7])
return 1
