#!lua
-- Gives up a waiting place or an active slot, at once. During the restore window after a loss it
-- is recorded, so that the token cannot restore the place. Given-up places are published to the
-- snapshots of all instances through the stream `left`.
--
-- KEYS: epoch q:settings q:waiting q:active q:admitted q:left q:bucket q:used q:turnover
-- ARGV: epoch, then for each request: user, score
-- Reply: {code…}: NOTHING, there was neither a place nor a slot under that score
-- Codes: 1 LEFT 2 NOTHING
--
-- uses: constants guard turnover active_slot queue_restore
redis.call('XLEN', left)
local replies = {}
for i = 2, #ARGV, 2 do
  local user, score = ARGV[i], ARGV[i + 1]
  local reply = NOTHING
  if slot_of(user) == score then
    vacate(user)
    reply = LEFT
  elseif redis.call('ZSCORE', waiting, user) == score then
    redis.call('ZREM', waiting, user)
    redis.call('XADD', left, 'MAXLEN', '~', 100000, '*', 's', score)
    reply = LEFT
  end
  if restoring and reply == LEFT then
    redis.call('HSET', used, user .. score, '')
  end
  replies[#replies + 1] = reply
end
write_turnover()
return replies
