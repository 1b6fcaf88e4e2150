#!lua
-- Publishes the settings of a queue. A new opening restarts the measurement of visits
-- (lib/turnover.lua). The caller holds the row lock of the definitions in MySQL, so the newest
-- settings come last.
--
-- KEYS: epoch busy q:settings q:turnover q:bucket
-- ARGV: epoch, queue, version, how many scores an earlier queue of this name gave to arrivals, then
--   field and value in turn
-- Reply: 1
--
-- uses: constants guard
local function opening()
  local fields = redis.call('HMGET', settings, 'mode', 'opens_at', 'closes_at')
  local closes_at = tonumber(fields[3] or '')
  local closed = fields[1] == 'closed' or closes_at and now >= closes_at or false
  return closed, tonumber(fields[2] or '')
end
local was_closed, opened_at = opening()
redis.call('HLEN', bucket)
redis.call('HSETNX', busy, ARGV[2], '')
local capacity = redis.call('HGET', settings, 'max_active')
redis.call('HSET', settings, 'version', ARGV[3], unpack(ARGV, 5))
if redis.call('HGET', settings, 'max_active') ~= capacity then
  -- The audit does not count users as too many who were admitted under a higher limit.
  redis.call('HSET', settings, 'capacity_since', text(now))
end
if ARGV[4] ~= '0' then
  redis.call('HSETNX', bucket, 'joined', ARGV[4])
end
local is_closed, opens_at = opening()
if was_closed and not is_closed or opens_at and opens_at ~= opened_at and opens_at > now then
  redis.call('UNLINK', turnover)
end
return 1
