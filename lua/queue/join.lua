#!lua
-- Puts users in line, or lets them in at once while the line is empty and there is room. One place a user, however often they ask.
--
-- KEYS: generation seq outbox q:settings q:waiting q:active q:admitted q:bucket
-- ARGV: generation, queue, then for each request: user
-- Reply: {now, front, {state, score, until}…}
--   front: the lowest score in line after the call, or −1
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
local slots, places = redis.call('HMGET', admitted, unpack(ARGV, 3)), redis.call('ZMSCORE', waiting, unpack(ARGV, 3))
local AGAIN = { [JOINED] = WAITS, [ADMITTED] = ACTIVE }
local replies, seen, entries, deadlines, fields, first, last, joined = {}, {}, {}, {}, {}, nil, nil, 0

local function place_of(user)
  if mode == 'prequeue' and placement == 'lottery' then
    return text(tonumber(string.sub(redis.sha1hex(seed .. user), 1, 10), 16))
  end
  joined = joined + 1
  -- 2^40 and up; the sequence counts from 0.
  return text(1099511627775 + next_score + joined)
end

local function join(user, slot, score)
  local own, deadline, base
  if slot then
    own, deadline, base = standing(user)
  end
  if own then
    return { ACTIVE, own, text(show_up(user, own, deadline, base)) }
  end
  if score then
    return { WAITS, score, 0 }
  end
  if mode == 'closed' then
    return { CLOSED, '', 0 }
  end
  if room > 0 and line == 0 then
    score, deadline = place_of(user), text(now + active_ms)
    deadlines[#deadlines + 1], deadlines[#deadlines + 2] = deadline, user
    fields[#fields + 1], fields[#fields + 2] = user, score .. ' ' .. deadline
    room, first, last = room - 1, first or score, score
    return { ADMITTED, score, deadline }
  end
  if line >= max_waiting then
    return { FULL, '', 0 }
  end
  score = place_of(user)
  if slot then
    vacate(user)
  end
  entries[#entries + 1], entries[#entries + 2] = score, user
  line = line + 1
  return { JOINED, score, 0 }
end

for i = 3, #ARGV do
  local user = ARGV[i]
  local before = seen[user]
  -- A user who asks twice in one call gets one place.
  local reply = before and { AGAIN[before[1]] or before[1], before[2], before[3] } or join(user, slots[i - 2], places[i - 2])
  seen[user], replies[#replies + 1] = before or reply, reply
end

if joined > 0 then
  redis.call('HINCRBY', bucket, 'joined', joined)
end
if #entries > 0 then
  redis.call('ZADD', waiting, unpack(entries))
end
if #fields > 0 then
  redis.call('ZADD', active, unpack(deadlines))
  redis.call('HSET', admitted, unpack(fields))
  admit_count(#fields / 2)
  emit('promotion', { queue = ARGV[2], from = tonumber(first), to = tonumber(last), count = #fields / 2, at = now })
end
publish()
return { text(now), redis.call('ZRANGE', waiting, 0, 0, 'WITHSCORES')[2] or '-1', unpack(replies) }
