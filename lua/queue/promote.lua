#!lua
-- Ends lapsed slots, takes abandoned places and admits users from the front of the queue: at most `per_interval` in an
-- interval, never above `max_active`, in score order. Any instance may call it at any time: the
-- bucket decides. A call ends at most 500 slots and admits at most 500 users. `busy` has the queues
-- of the partition in which there is something to do, so that idle queues cost nothing.
--
-- KEYS: epoch seq outbox busy q:settings q:waiting q:active q:admitted q:bucket q:used q:turnover
--   q:owners q:holds q:due q:left q:heard
-- ARGV: epoch, queue
-- Reply: {now, mode, waiting, active, promoted, no_shows, lapsed, admitted, version, wait,
--   newest, from, to, abandoned}, or NOT_PUBLISHED. wait: milliseconds until a further call can admit users,
--   0 for now, −1 when that cannot be foreseen. newest: the last score given to an arrival.
--   from, to: the lowest and the highest admitted score, or −1
--
-- uses: constants guard settings bucket abandoned turnover active_slot outbox
local LIMIT = 500
redis.call('HLEN', admitted)
local abandoned = drop_abandoned()
local lapsed = redis.call('ZRANGEBYSCORE', active, '-inf', text(now), 'LIMIT', 0, LIMIT)
local inside, line = active_count(), redis.call('ZCARD', waiting)
local allowed, wait = allowance()
local count = 0
if mode == 'open' then
  count = math.max(0, math.min(allowed, max_active - inside, line, LIMIT))
end

local from, to = '-1', '-1'
local no_shows = 0
for _, user in ipairs(lapsed) do
  if vacate(user) then
    no_shows = no_shows + 1
  end
end
write_turnover()

-- The first call after an opening records how many users took part in each draw. The restore
-- window has to end first.
local drawn = tonumber(redis.call('HGET', bucket, 'drawn') or '0')
if not before_opening and draw > drawn and not is_restoring() then
  for nth = drawn + 1, draw do
    local first = 2 * nth * SCORES_PER_SEGMENT
    local entrants = redis.call('ZCOUNT', waiting, text(first),
      '(' .. text(first + SCORES_PER_SEGMENT))
    emit('draw', { queue = ARGV[2], draw = nth, entrants = entrants, at = now })
  end
  redis.call('HSET', bucket, 'drawn', text(draw), 'opened', text(draw))
end

if count > 0 then
  -- The restore window is over once users are admitted again, so its record is not needed any more.
  redis.call('UNLINK', used)
  -- One range read of the front; ZPOPMIN would search for each user.
  local front = redis.call('ZRANGE', waiting, 0, count - 1, 'WITHSCORES')
  redis.call('ZREMRANGEBYRANK', waiting, 0, count - 1)
  local deadline, unclaimed, slots, scores = text(now + claim_ms), ' 0 ' .. text(now), {}, {}
  for i = 1, #front, 2 do
    slots[i], slots[i + 1] = deadline, front[i]
    scores[i], scores[i + 1] = front[i], front[i + 1] .. unclaimed
  end
  redis.call('ZADD', active, unpack(slots))
  redis.call('HSET', admitted, unpack(scores))
  admit_count(count)
  from, to = front[2], front[#front]
  emit('promotion', { queue = ARGV[2], from = tonumber(from), to = tonumber(to), count = count,
    at = now, limit = per_interval, interval = interval })
  line, inside, allowed = line - count, inside + count, allowed - count
  if inside >= max_active then
    mark_filled()
  end
end
publish()

local has_work = line > 0 or redis.call('ZCARD', active) > 0 or redis.call('HLEN', owners) > 0
  or redis.call('ZCARD', holds) > 0 or redis.call('ZCARD', due) > 0 or is_restoring()
  or draw > tonumber(redis.call('HGET', bucket, 'drawn') or '0')
if has_work then
  redis.call('HSETNX', busy, ARGV[2], '')
else
  redis.call('HDEL', busy, ARGV[2])
end

if mode ~= 'open' or line == 0 or inside >= max_active then
  local next_lapse = redis.call('ZRANGE', active, 0, 0, 'WITHSCORES')[2]
  wait = next_lapse and math.max(0, tonumber(next_lapse) - now) or -1
elseif allowed > 0 then
  wait = 0
else
  local _, more_in = allowance()
  wait = more_in
end
local totals = redis.call('HMGET', bucket, 'admitted', 'joined')
local newest = text(newest_arrival(totals[2]))
return { text(now), mode, line, inside, count, no_shows, #lapsed, totals[1] or '0',
  redis.call('HGET', settings, 'version') or '0', wait, newest,
  from, to, abandoned }
