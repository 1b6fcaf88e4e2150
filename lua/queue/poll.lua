#!lua
-- Says where each holder of a queue token stands. A promoted user who asks has shown up: the slot is theirs from now on.
--
-- KEYS: generation q:settings q:waiting q:active q:admitted
-- ARGV: generation, then for each request: user, score
-- Reply: {now, {state, until}…}: 1 waiting; 2 active: until is the moment at which the slot lapses; 3 neither
--   −2 the queue has no settings
--
-- uses: guard settings slot
local WAITING, ACTIVE, EXPIRED = 1, 2, 3
local replies = {}
for i = 2, #ARGV, 2 do
  local user, score = ARGV[i], ARGV[i + 1]
  local own, deadline, base = standing(user)
  local reply = { EXPIRED, 0 }
  if own == score then
    reply = { ACTIVE, text(show_up(user, score, deadline, base)) }
  elseif redis.call('ZSCORE', waiting, user) == score then
    reply = { WAITING, 0 }
  end
  replies[#replies + 1] = reply
end
return { text(now), unpack(replies) }
