-- Reads the published settings of a queue and derives the mode that applies now. A queue without
-- settings in Redis ends the script with NOT_PUBLISHED: the caller publishes them from MySQL and
-- calls again.
-- Gives: mode ('open' | 'paused' | 'prequeue' | 'closed'), per_interval, interval, max_active,
--   active_ms, claim_ms, max_waiting, placement, seed, draw (the number of the newest draw, 0:
--   none), before_opening, lottery (whether places are drawn now), newest_arrival(joined) → the
--   last score given to an arrival, or the one before the first; sliding, visit_end(began),
--   abandon_ms.
local fields = redis.call('HMGET', settings, 'mode', 'per_interval', 'interval_ms', 'max_active',
  'active_ms', 'claim_ms',
  'max_waiting', 'opens_at', 'closes_at', 'prequeue_starts_at', 'placement', 'seed',
  'draw', 'visit', 'visit_limit_ms', 'abandon_ms')
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
local draw = tonumber(fields[13] or '0')
local before_opening = opens_at and now < opens_at or not opens_at and mode == 'prequeue'
local lottery = before_opening and placement == 'lottery' and draw > 0
local function newest_arrival(joined)
  return (2 * draw + 1) * SCORES_PER_SEGMENT - 1 + tonumber(joined or '0')
end
local sliding, visit_limit_ms = fields[14] == 'sliding', tonumber(fields[15] or '')
-- Milliseconds without a sign of life after which a waiting user loses the place, or nil.
local abandon_ms = tonumber(fields[16] or '')
-- When a visit that began then ends, if it is used now.
local function visit_end(began)
  local ends = now + active_ms
  return visit_limit_ms and math.min(ends, began + visit_limit_ms) or ends
end
if closes_at and now >= closes_at then
  mode = 'closed'
elseif mode == 'open' or mode == 'prequeue' then
  if opens_at and now < opens_at then
    mode = (not prequeue_starts_at or now >= prequeue_starts_at) and 'prequeue' or 'closed'
  elseif opens_at then
    mode = 'open'
  end
end
