-- The line after a loss. Until `restore_until` nobody is let in, and whoever shows a token from before takes the old place again: its score is below
-- `restore_below`, from where on places were dealt after the loss, and above `restore_above`, the last score whose slot was over by then. A token that
-- was used up, or given up since, stands in `used`, user .. score, and gets nothing. A user who stands in line already keeps the better place.
-- Gives: stand_up(user, score, stands) → whether the place is theirs now.
local restore = redis.call('HMGET', bucket, 'restore_until', 'restore_below', 'restore_above')
local restoring = tonumber(restore[1] or '0') > now
redis.call('HLEN', used)
local function stand_up(user, score, stands)
  local place = tonumber(score)
  if not restoring or place >= tonumber(restore[2]) or place <= tonumber(restore[3]) then
    return false
  end
  if stands and tonumber(stands) < place or redis.call('HEXISTS', used, user .. score) == 1 then
    return false
  end
  redis.call('ZADD', waiting, score, user)
  return true
end
