-- How the visits of a queue end, from which the service forecasts waits (src/queue/estimator.rs).
-- `turnover` has counts by the age bin of a duration: s (from the promotion to the show-up), e
-- (visits that ended before their own deadline), l (visits that lapsed at it), x (visits that a
-- hold extended, by the time beyond it), and n (users who never showed up). Recent visits weigh
-- more: an event adds 2^((now - t0) / half_life), so a count of now is its value divided by the
-- weight of now. `ended` counts all visits, `filled` is the value of `ended` when the queue was
-- full for the first time since its opening. A call writes each touched count once.
-- Gives: count_show_up(promoted); count_end(value in `admitted`, score in
--   `active`) and vacate(user) → whether the user never showed up;
--   write_turnover(); mark_filled(), after write_turnover; read_turnover() → {field, value, …}.
local turnover_sums, ended_visits = {}, 0
redis.call('HLEN', turnover)
redis.call('HLEN', settings)
local function age_bin(ms)
  local units = math.floor(math.max(0, ms) / 250)
  if units < 16 then
    return units
  end
  -- math.frexp gives an exponent that is one more than the logarithm, rounded down.
  local _, exponent = math.frexp(units)
  local shift = exponent - 5
  return math.min(16 * shift + math.floor(units / 2 ^ shift), AGE_BINS - 1)
end
local function add_turnover(field)
  turnover_sums[field] = (turnover_sums[field] or 0) + 1
end
local function count_show_up(promoted)
  add_turnover('s' .. age_bin(now - promoted))
end
-- Counts the end of a visit, from what `admitted` and `active` have for its user.
local function count_end(value, score)
  local base, start = string.match(value or '', '^%d+ (%d+) (%d+)$')
  local deadline, no_show = tonumber(score or '0'), false
  if base then
    base, start = tonumber(base), tonumber(start)
    local ended_at = math.min(now, deadline)
    ended_visits = ended_visits + 1
    if base == 0 and deadline <= now then
      no_show = true
      add_turnover('n')
    elseif base == 0 then
      -- The user left without a poll: a visit of no time.
      count_show_up(start)
      add_turnover('e0')
    elseif ended_at < base then
      add_turnover('e' .. age_bin(ended_at - start))
    elseif deadline <= base then
      add_turnover('l' .. age_bin(deadline - start))
    else
      add_turnover('x' .. age_bin(ended_at - base))
    end
  end
  return no_show
end
local function vacate(user)
  local no_show = count_end(redis.call('HGET', admitted, user), redis.call('ZSCORE', active, user))
  redis.call('ZREM', active, user)
  redis.call('HDEL', admitted, user)
  return no_show
end
-- Reads all fields, of which there are at most four for each age bin and a few more.
local function read_turnover()
  local list, cursor = {}, '0'
  repeat
    local part = redis.call('HSCAN', turnover, cursor, 'COUNT', 1000)
    for _, word in ipairs(part[2]) do
      list[#list + 1] = word
    end
    cursor = part[1]
  until cursor == '0'
  return list
end
-- The weight of now. The origin moves before weights become too large for exact sums.
local function turnover_weight()
  local origin = redis.call('HMGET', turnover, 't0', 'half_life')
  local t0, half_life = tonumber(origin[1] or ''), tonumber(origin[2] or '')
  if not t0 then
    local active_seconds = tonumber(redis.call('HGET', settings, 'active_ms') or '0') / 1000
    half_life = math.floor(math.max(300, math.min(7200, 2 * active_seconds)))
    redis.call('HSET', turnover, 't0', text(now), 'half_life', text(half_life))
    return 1
  end
  local halvings = (now - t0) / 1000 / half_life
  if halvings <= 30 then
    return 2 ^ halvings
  end
  local all = read_turnover()
  for i = 1, #all, 2 do
    if string.match(all[i], '^[selxn]%d*$') then
      local rest = tonumber(all[i + 1]) / 2 ^ halvings
      if rest < 1e-6 then
        redis.call('HDEL', turnover, all[i])
      else
        redis.call('HSET', turnover, all[i], rest)
      end
    end
  end
  redis.call('HSET', turnover, 't0', text(now))
  return 1
end
local function write_turnover()
  if not next(turnover_sums) then
    return
  end
  local weight = turnover_weight()
  for field, count in pairs(turnover_sums) do
    redis.call('HINCRBYFLOAT', turnover, field, count * weight)
  end
  if ended_visits > 0 then
    redis.call('HINCRBY', turnover, 'ended', ended_visits)
  end
end
local function mark_filled()
  redis.call('HSETNX', turnover, 'filled', redis.call('HGET', turnover, 'ended') or '0')
end
