-- Restores a queue after a loss of Redis. Until `restore_until` no user is admitted, and a user
-- who shows a token from before the loss takes the old place again: its score is below
-- `restore_below`, where places given after the loss begin, and above `restore_above`, the last
-- score whose slot was over by then. A token that was used up or given up since is in `used`
-- (user .. score) and restores nothing. A user who waits already keeps the better place.
-- Gives: restore_place(user, score, current) → whether the place is theirs now.
local restore = redis.call('HMGET', bucket, 'restore_until', 'restore_below', 'restore_above')
local restoring = tonumber(restore[1] or '0') > now
redis.call('HLEN', used)
local function restore_place(user, score, current)
  local place = tonumber(score)
  if not restoring or place >= tonumber(restore[2]) or place <= tonumber(restore[3]) then
    return false
  end
  if current and tonumber(current) < place or redis.call('HEXISTS', used, user .. score) == 1 then
    return false
  end
  redis.call('ZADD', waiting, score, user)
  return true
end
