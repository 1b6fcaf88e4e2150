#!lua flags=no-writes
-- Reads the shape of a queue: its counts, its front, how many users wait before each of some
-- scores, and which places were given up since the last call.
--
-- KEYS: epoch q:settings q:waiting q:active q:bucket q:sales q:left
-- ARGV: epoch, the stream id after which given-up places are wanted, then scores in ascending
--   order (≤ 900)
-- Reply: {now, mode, waiting, active, recent, peak, sold_out, admitted, front, newest, cursor,
--   {score given up…}, {how many wait before each score…}, the score below which Redis must be
--   asked}, or NOT_PUBLISHED. front: the lowest waiting score, or −1. newest: the last score
--   given to an arrival, 2^40 − 1 before the first. cursor: the stream id for the next call. At
--   most 1,000 given-up places
--
-- uses: constants guard settings sales admission_rate
local gone, cursor, before = {}, ARGV[2], {}
for i, entry in ipairs(redis.call('XRANGE', left, '(' .. ARGV[2], '+', 'COUNT', 1000)) do
  gone[i], cursor = entry[2][2], entry[1]
end
for i = 3, #ARGV do
  before[i - 2] = redis.call('ZCOUNT', waiting, '-inf', '(' .. ARGV[i])
end
local first = redis.call('ZRANGE', waiting, 0, 0, 'WITHSCORES')[2] or '-1'
local newest = text(FIRST_ARRIVAL_SCORE - 1 + tonumber(redis.call('HGET', bucket, 'joined')
  or '0'))
local inside = redis.call('ZCOUNT', active, '(' .. text(now), '+inf')
local lately, peak = recent()
return { text(now), mode, redis.call('ZCARD', waiting), inside, lately, peak, sold_out(),
  redis.call('HGET', bucket, 'admitted') or '0', first, newest, cursor,
  gone, before, redis.call('HGET', bucket, 'restore_below') or '0' }
