#!lua
-- Opens the window in which a line stands up again from its tokens (see lib/restore.lua), and lays how many were let in. Arrivals get their places behind all that
-- were ever dealt, and for one interval nobody is let in, since who was let in last is not known.
--
-- KEYS: epoch q:bucket
-- ARGV: epoch, how many were let in, the window in milliseconds, arrivals to be taken as dealt, how many an interval lets in, the last score whose slot is over
-- Reply: 1
--
-- uses: constants guard
redis.call('HSET', bucket, 'admitted', ARGV[2], 'joined', ARGV[4], 'log', text(now) .. ':' .. ARGV[5],
  'restore_until', text(now + tonumber(ARGV[3])), 'restore_below', text(FIRST_ARRIVAL_SCORE + tonumber(ARGV[4])), 'restore_above', ARGV[6])
return 1
