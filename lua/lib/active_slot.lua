-- Active slots: `active` has the time at which a user's slot ends; `admitted` has their score, the
-- time at which the visit ends without holds, and when it began ("score base start"; "score 0
-- promoted" until the promoted user has shown up). Uses turnover, which ends slots.
-- Gives: slot_of(user) → score (text), deadline, base, start of a running slot, or nil;
--   show_up(user, score, deadline, base, start, used) → deadline, where `used` moves the end of a
--   sliding visit; active_count().
local function slot_of(user)
  local value = redis.call('HGET', admitted, user)
  if not value then
    return nil
  end
  local deadline = tonumber(redis.call('ZSCORE', active, user) or '0')
  if deadline <= now then
    return nil
  end
  local score, base, start = string.match(value, '^(%d+) (%d+) (%d+)$')
  return score, deadline, tonumber(base), tonumber(start)
end
local function show_up(user, score, deadline, base, start, used)
  local ends = base
  if base == 0 then
    count_show_up(start)
    start = now
    ends = visit_end(now)
    deadline = ends
  elseif used and sliding and base > now then
    ends = math.max(base, visit_end(start))
    deadline = math.max(deadline, ends)
  end
  if ends > base then
    redis.call('ZADD', active, text(deadline), user)
    redis.call('HSET', admitted, user, score .. ' ' .. text(ends) .. ' ' .. text(start))
  end
  return deadline
end
local function active_count()
  return redis.call('ZCOUNT', active, '(' .. text(now), '+inf')
end
