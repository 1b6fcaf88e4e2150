#!lua
-- Adds users to a queue, or admits them at once while the queue is empty and slots are free. A
-- user has one place, however often they join.
--
-- KEYS: epoch seq outbox busy q:settings q:waiting q:active q:admitted q:bucket q:turnover
--   q:heard
-- ARGV: epoch, queue, then for each request: user
-- Reply: {now, front, waiting, {word…}, {until…}}, or NOT_PUBLISHED. front: the lowest waiting
--   score after the call, or −1. waiting: how many wait after the call. word, one for each
--   request: 8 × score + code; one number costs Redis a third of a list of two, and scores are
--   below 2^50. JOINED and ADMITTED are new, WAITING and ACTIVE
--   were there before; CLOSED and FULL have the score 0. until: when the active slot ends, one
--   for each ADMITTED or ACTIVE
-- Codes: 1 JOINED 2 WAITING 3 ADMITTED 4 ACTIVE 5 CLOSED 6 FULL
--
-- uses: constants guard settings bucket turnover active_slot outbox
local AGAIN = { [JOINED] = WAITING, [ADMITTED] = ACTIVE }
local line, inside = redis.call('ZCARD', waiting), active_count()
local room = mode == 'open' and math.min(allowance(), max_active - inside) or 0
local totals = redis.call('HMGET', bucket, 'joined', 'opened')
local newest = newest_arrival(totals[1])
-- An opening that has begun is not undone by a clock that goes back.
local has_opened = tonumber(totals[2] or '0') >= draw
local dealt = newest
local slots = redis.call('HLEN', admitted) > 0 and redis.call('HMGET', admitted, unpack(ARGV,
  3)) or {}
local places = redis.call('ZMSCORE', waiting, unpack(ARGV, 3))
local entries, deadlines, fields, signs, first, last = {}, {}, {}, {}, nil, nil
redis.call('ZCARD', heard)

local function place_of(user)
  -- The score of a draw depends on the user alone, so that joining again gives the same place.
  if lottery and not has_opened then
    return 2 * draw * SCORES_PER_SEGMENT
      + tonumber(string.sub(redis.sha1hex(seed .. user), 1, 10), 16)
  end
  dealt = dealt + 1
  return dealt
end

local function hear(user)
  if abandon_ms then
    signs[#signs + 1], signs[#signs + 2] = text(now), user
  end
end

-- Gives state, score, and until.
local function join(user, slot, score)
  if slot then
    local own, deadline, base, start = slot_of(user)
    if own then
      return ACTIVE, own, show_up(user, own, deadline, base, start)
    end
  end
  if score then
    hear(user)
    return WAITING, score
  end
  if mode == 'closed' then
    return CLOSED, 0
  end
  if room > 0 and line == 0 then
    score = place_of(user)
    local deadline = visit_end(now)
    deadlines[#deadlines + 1], deadlines[#deadlines + 2] = text(deadline), user
    fields[#fields + 1], fields[#fields + 2] = user, text(score) .. ' ' .. text(deadline)
      .. ' ' .. text(now)
    room, first, last = room - 1, first or score, score
    return ADMITTED, score, deadline
  end
  if line >= max_waiting then
    return FULL, 0
  end
  score = place_of(user)
  if slot then
    vacate(user)
  end
  entries[#entries + 1], entries[#entries + 2] = text(score), user
  line = line + 1
  hear(user)
  return JOINED, score
end

local words, untils, until_of, seen = {}, {}, {}, {}
for i = 3, #ARGV do
  local nth, user = i - 2, ARGV[i]
  local before = seen[user]
  if before then
    -- A user who asks twice in one call gets one place.
    local state = words[before] % 8
    words[nth], until_of[nth] = words[before] - state + (AGAIN[state] or state), until_of[before]
  else
    local state, score
    state, score, until_of[nth] = join(user, slots[nth], places[nth])
    words[nth], seen[user] = 8 * score + state, nth
  end
  untils[#untils + 1] = until_of[nth]
end

if #entries > 0 or #fields > 0 then
  redis.call('HSETNX', busy, ARGV[2], '')
end
if dealt > newest then
  redis.call('HINCRBY', bucket, 'joined', dealt - newest)
  if not has_opened then
    redis.call('HSET', bucket, 'opened', text(draw))
  end
end
if #entries > 0 then
  redis.call('ZADD', waiting, unpack(entries))
end
if #signs > 0 then
  redis.call('ZADD', heard, unpack(signs))
end
if #fields > 0 then
  redis.call('ZADD', active, unpack(deadlines))
  redis.call('HSET', admitted, unpack(fields))
  admit_count(#fields / 2)
  emit('promotion', { queue = ARGV[2], from = first, to = last, count = #fields / 2, at = now,
    limit = per_interval, interval = interval })
end
write_turnover()
if #fields > 0 and inside + #fields / 2 >= max_active then
  mark_filled()
end
publish()
return { text(now), redis.call('ZRANGE', waiting, 0, 0, 'WITHSCORES')[2] or '-1', line, words,
  untils }
