#!lua
-- Returns the state of each holder of a queue token. A promoted user who polls has shown up: the
-- slot is theirs from now on. After a loss of Redis, the queue is restored from the tokens that
-- are shown here.
--
-- KEYS: epoch q:settings q:waiting q:active q:admitted q:bucket q:used
-- ARGV: epoch, then for each request: user, score
-- Reply: {now, {code, until}…}, or NOT_PUBLISHED. until: when the slot ends, for ACTIVE
-- Codes: 1 WAITING 2 ACTIVE 3 EXPIRED
--
-- uses: constants guard settings active_slot queue_restore
local replies, users, scores = {}, {}, {}
for i = 2, #ARGV, 2 do
  users[#users + 1], scores[#scores + 1] = ARGV[i], ARGV[i + 1]
end
local slots, places = redis.call('HMGET', admitted, unpack(users)), redis.call('ZMSCORE',
  waiting, unpack(users))
for i, user in ipairs(users) do
  local score, reply = scores[i], { EXPIRED, 0 }
  local own, deadline, base
  if slots[i] then
    own, deadline, base = slot_of(user)
  end
  if own == score then
    reply = { ACTIVE, text(show_up(user, score, deadline, base)) }
  elseif places[i] == score or not own and restore_place(user, score, places[i]) then
    reply = { WAITING, 0 }
  end
  replies[i] = reply
end
return { text(now), unpack(replies) }
