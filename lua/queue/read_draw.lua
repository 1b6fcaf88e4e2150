#!lua flags=no-writes
-- Reads the newest draw that was published, also when its change was not committed to MySQL.
--
-- KEYS: epoch q:settings
-- ARGV: epoch
-- Reply: {draw, seed, opens_at}. draw: its number, 0 for none. opens_at: 0 when the operator opens
--   the queue
--
-- uses: constants guard
local fields = redis.call('HMGET', settings, 'draw', 'seed', 'opens_at')
local opens_at = tonumber(fields[3] or '') or 0
return { tonumber(fields[1] or '0'), fields[2] or '', text(opens_at) }
