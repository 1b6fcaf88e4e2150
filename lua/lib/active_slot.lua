-- Active slots: `active` has the time at which a user's slot ends; `admitted` has their score and
-- the time at which it ends without holds ("score base"; base is 0 until the promoted user has
-- shown up).
-- Gives: slot_of(user) → score (text), deadline, base of a running slot, or nil; show_up(user,
--   score, deadline, base) → deadline; vacate(user); active_count().
local function slot_of(user)
  local value = redis.call('HGET', admitted, user)
  if not value then
    return nil
  end
  local deadline = tonumber(redis.call('ZSCORE', active, user) or '0')
  if deadline <= now then
    return nil
  end
  local score, base = string.match(value, '^(%d+) (%d+)$')
  return score, deadline, tonumber(base)
end
local function show_up(user, score, deadline, base)
  if base > 0 then
    return deadline
  end
  deadline = now + active_ms
  redis.call('ZADD', active, deadline, user)
  redis.call('HSET', admitted, user, score .. ' ' .. text(deadline))
  return deadline
end
local function vacate(user)
  redis.call('ZREM', active, user)
  redis.call('HDEL', admitted, user)
end
local function active_count()
  return redis.call('ZCOUNT', active, '(' .. text(now), '+inf')
end
