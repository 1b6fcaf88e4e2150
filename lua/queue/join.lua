#!lua
-- Puts users in line, or lets them in at once while the line is empty and there is room. One place a user, however often they ask.
--
-- KEYS: generation seq outbox q:settings q:waiting q:active q:admitted q:bucket
-- ARGV: generation, queue, then for each request: user
-- Reply: {now, {state, score, until}…}
--   state 1 stands in line now, 2 stood in line already
--   state 3 let in now, 4 was active already: until is the moment at which the slot lapses
--   state 5 the queue is closed, 6 it is full: no score
--   −2 the queue has no settings
--
-- uses: guard settings bucket slot outbox
local JOINED, WAITS, ADMITTED, ACTIVE, CLOSED, FULL = 1, 2, 3, 4, 5, 6
local line, inside = redis.call('ZCARD', waiting), active_count()
local room = mode == 'open' and math.min(allowance(), max_active - inside) or 0
local next_score = tonumber(redis.call('HGET', bucket, 'joined') or '0')
local replies, seated, admitted_now, first, last, joined = {}, {}, 0, nil, nil, 0

local function place_of(user)
  if mode == 'prequeue' and placement == 'lottery' then
    return text(tonumber(string.sub(redis.sha1hex(seed .. user), 1, 10), 16))
  end
  joined = joined + 1
  -- 2^40 and up; the sequence counts from 0.
  return text(1099511627775 + next_score + joined)
end

for i = 3, #ARGV do
  local user = ARGV[i]
  local score, deadline, base = standing(user)
  local reply
  if score then
    reply = { ACTIVE, score, text(show_up(user, score, deadline, base)) }
  else
    score = redis.call('ZSCORE', waiting, user)
    if score then
      reply = { WAITS, score, 0 }
    elseif mode == 'closed' then
      reply = { CLOSED, '', 0 }
    elseif room > 0 and line == 0 then
      score, deadline = place_of(user), text(now + active_ms)
      redis.call('ZADD', active, deadline, user)
      redis.call('HSET', admitted, user, score .. ' ' .. deadline)
      room, admitted_now, first, last = room - 1, admitted_now + 1, first or score, score
      reply = { ADMITTED, score, deadline }
    elseif line >= max_waiting then
      reply = { FULL, '', 0 }
    else
      score = place_of(user)
      vacate(user)
      redis.call('ZADD', waiting, score, user)
      line = line + 1
      reply = { JOINED, score, 0 }
    end
  end
  replies[#replies + 1] = reply
end

if joined > 0 then
  redis.call('HINCRBY', bucket, 'joined', joined)
end
if admitted_now > 0 then
  admit_count(admitted_now)
  emit('promotion', { queue = ARGV[2], from = tonumber(first), to = tonumber(last), count = admitted_now, at = now })
end
publish()
return { text(now), unpack(replies) }
