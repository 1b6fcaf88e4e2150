#!lua flags=no-writes
-- The line at a glance: its counts, its front, how many stand before each of some scores, and which places were given up since the last look.
--
-- KEYS: epoch q:settings q:waiting q:active q:bucket q:sales q:left
-- ARGV: epoch, the id after which places given up are wanted, then scores in ascending order (≤ 900)
-- Reply: {now, mode, waiting, active, recent, peak, sold_out, admitted, front, newest, cursor, {score given up…}, {how many stand before each score…}, scores below which Redis must be asked}
--   front: the lowest score in line, or −1; newest: the last score dealt to an arrival, 2^40 − 1 before the first; cursor: the id for the next look; at most 1,000 places given up a call
--   −2 the queue has no settings
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
local newest = text(FIRST_ARRIVAL_SCORE - 1 + tonumber(redis.call('HGET', bucket, 'joined') or '0'))
local inside = redis.call('ZCOUNT', active, '(' .. text(now), '+inf')
local lately, peak = recent()
return { text(now), mode, redis.call('ZCARD', waiting), inside, lately, peak, sold_out(), redis.call('HGET', bucket, 'admitted') or '0', first, newest, cursor,
  gone, before, redis.call('HGET', bucket, 'restore_below') or '0' }
