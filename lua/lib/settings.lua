-- Reads the published settings of a queue and derives the mode that applies now. A queue without
-- settings in Redis ends the script with NOT_PUBLISHED: the caller publishes them from MySQL and
-- calls again.
-- Gives: mode ('open' | 'paused' | 'prequeue' | 'closed'), per_interval, interval, max_active,
--   active_ms, claim_ms, max_waiting, placement, seed.
local fields = redis.call('HMGET', settings, 'mode', 'per_interval', 'interval_ms', 'max_active',
  'active_ms', 'claim_ms',
  'max_waiting', 'opens_at', 'closes_at', 'prequeue_starts_at', 'placement', 'seed')
if not fields[1] then
  return NOT_PUBLISHED
end
local mode = fields[1]
local per_interval, interval, max_active = tonumber(fields[2]), tonumber(fields[3]),
  tonumber(fields[4])
local active_ms, claim_ms = tonumber(fields[5]), tonumber(fields[6])
local max_waiting = tonumber(fields[7] or '') or math.huge
local opens_at, closes_at = tonumber(fields[8] or ''), tonumber(fields[9] or '')
local prequeue_starts_at, placement, seed = tonumber(fields[10] or ''), fields[11], fields[12]
if closes_at and now >= closes_at then
  mode = 'closed'
elseif mode == 'open' or mode == 'prequeue' then
  if opens_at and now < opens_at then
    mode = (not prequeue_starts_at or now >= prequeue_starts_at) and 'prequeue' or 'closed'
  elseif opens_at then
    mode = 'open'
  end
end
