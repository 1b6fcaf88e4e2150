#!lua
-- Says where each holder of a queue token stands. A promoted user who asks has shown up: the slot is theirs from now on. After a loss the line stands up again
-- from the tokens that are shown here.
--
-- KEYS: epoch q:settings q:waiting q:active q:admitted q:bucket q:used
-- ARGV: epoch, then for each request: user, score
-- Reply: {now, {state, until}…}: 1 waiting; 2 active: until is the moment at which the slot lapses; 3 neither
--   −2 the queue has no settings
-- Codes: 1 WAITING 2 ACTIVE 3 EXPIRED
--
-- uses: constants guard settings active_slot queue_restore
local replies, users, scores = {}, {}, {}
for i = 2, #ARGV, 2 do
  users[#users + 1], scores[#scores + 1] = ARGV[i], ARGV[i + 1]
end
local slots, places = redis.call('HMGET', admitted, unpack(users)), redis.call('ZMSCORE', waiting, unpack(users))
for i, user in ipairs(users) do
  local score, reply = scores[i], { EXPIRED, 0 }
  local own, deadline, base
  if slots[i] then
    own, deadline, base = standing(user)
  end
  if own == score then
    reply = { ACTIVE, text(show_up(user, score, deadline, base)) }
  elseif places[i] == score or not own and stand_up(user, score, places[i]) then
    reply = { WAITING, 0 }
  end
  replies[i] = reply
end
return { text(now), unpack(replies) }
