#!lua
-- Removes a user from a queue on behalf of an operator, whatever their score: a waiting place is
-- given up as in queue/leave, a visit ends at once.
--
-- KEYS: epoch q:settings q:waiting q:active q:admitted q:left q:bucket q:used q:turnover
-- ARGV: epoch, user
-- Reply: the score that the user had, or −1 for a user who neither waits nor is active
--
-- uses: constants guard turnover active_slot queue_restore
redis.call('XLEN', left)
local user = ARGV[2]
local score = slot_of(user)
if score then
  vacate(user)
else
  score = redis.call('ZSCORE', waiting, user)
  if not score then
    return '-1'
  end
  redis.call('ZREM', waiting, user)
  redis.call('XADD', left, 'MAXLEN', '~', 100000, '*', 's', score)
end
if restoring then
  redis.call('HSET', used, user .. score, '')
end
write_turnover()
return score
