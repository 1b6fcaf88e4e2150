-- Places that their users have abandoned. `heard` has, for each waiting user of a queue with
-- `abandon_ms`, when an instance last heard of them. Users who waited before the queue had that
-- setting, or before a loss of Redis, count as heard when a call of promote finds them: `heard_to`
-- in the bucket is the score up to which it has looked. Uses settings and bucket.
-- Gives: drop_abandoned() → how many places it took, at most 500.
local PAGE = 500
local function hear_all()
  local from = redis.call('HGET', bucket, 'heard_to') or '-inf'
  if from == 'all' then
    return
  end
  local found = redis.call('ZRANGEBYSCORE', waiting, from, '+inf', 'WITHSCORES', 'LIMIT', 0, PAGE)
  local entries = {}
  for i = 1, #found, 2 do
    entries[i], entries[i + 1] = text(now), found[i]
  end
  if #entries > 0 then
    redis.call('ZADD', heard, 'NX', unpack(entries))
  end
  local is_last = #found < 2 * PAGE
  redis.call('HSET', bucket, 'heard_to', is_last and 'all' or '(' .. found[#found])
end
local function drop_abandoned()
  redis.call('ZCARD', heard)
  redis.call('XLEN', left)
  if not abandon_ms then
    if redis.call('HDEL', bucket, 'heard_to') == 1 then
      redis.call('UNLINK', heard)
    end
    return 0
  end
  if is_restoring() then
    return 0
  end
  hear_all()
  local silent = redis.call('ZRANGEBYSCORE', heard, '-inf', text(now - abandon_ms), 'LIMIT', 0, PAGE)
  if #silent == 0 then
    return 0
  end
  local dropped = 0
  for i, score in ipairs(redis.call('ZMSCORE', waiting, unpack(silent))) do
    -- A user who was admitted or has left is no longer in the queue.
    if score then
      redis.call('ZREM', waiting, silent[i])
      redis.call('XADD', left, 'MAXLEN', '~', 100000, '*', 's', score)
      dropped = dropped + 1
    end
  end
  redis.call('ZREM', heard, unpack(silent))
  return dropped
end
