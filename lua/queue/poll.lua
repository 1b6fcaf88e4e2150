#!lua
-- Returns the state of each holder of a queue token. A promoted user who polls has shown up: the
-- slot is theirs from now on. After a loss of Redis, the queue is restored from the tokens that
-- are shown here.
--
-- KEYS: epoch q:settings q:waiting q:active q:admitted q:bucket q:used
--   q:turnover
-- ARGV: epoch, then for each request: user, score, 1 if the visit is used by it, else 0
-- Reply: {now, {code, until}…}, or NOT_PUBLISHED. until: when the slot ends, for ACTIVE
-- Codes: 1 WAITING 2 ACTIVE 3 EXPIRED
--
-- uses: constants guard settings turnover active_slot queue_restore
local replies, users, scores, used_by = {}, {}, {}, {}
for i = 2, #ARGV, 3 do
  local nth = #users + 1
  users[nth], scores[nth], used_by[nth] = ARGV[i], ARGV[i + 1], ARGV[i + 2] == '1'
end
local slots, places = redis.call('HMGET', admitted, unpack(users)), redis.call('ZMSCORE',
  waiting, unpack(users))
for i, user in ipairs(users) do
  local score, reply = scores[i], { EXPIRED, 0 }
  local own, deadline, base, start
  if slots[i] then
    own, deadline, base, start = slot_of(user)
  end
  if own == score then
    reply = { ACTIVE, text(show_up(user, score, deadline, base, start, used_by[i])) }
  elseif places[i] == score or not own and restore_place(user, score, places[i]) then
    reply = { WAITING, 0 }
  end
  replies[i] = reply
end
write_turnover()
return { text(now), unpack(replies) }
