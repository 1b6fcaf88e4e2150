#!lua flags=no-writes
-- Live counts of a queue.
--
-- KEYS: generation q:settings q:waiting q:active q:bucket q:sales
-- ARGV: generation
-- Reply: {now, mode, waiting, active, recent, sold_out, admitted}; −2 the queue has no settings
--
-- uses: guard settings sales bucket
local inside = redis.call('ZCOUNT', active, '(' .. text(now), '+inf')
return { text(now), mode, redis.call('ZCARD', waiting), inside, recent(), sold_out(), redis.call('HGET', bucket, 'admitted') or '0' }
