#!lua
-- Ends lapsed slots and admits users from the front of the queue: at most `per_interval` in an
-- interval, never above `max_active`, in score order. Any instance may call it at any time: the
-- bucket decides. A call ends at most 500 slots and admits at most 500 users.
--
-- KEYS: epoch seq outbox q:settings q:waiting q:active q:admitted q:bucket q:used
-- ARGV: epoch, queue
-- Reply: {now, mode, waiting, active, promoted, no_shows, lapsed, admitted, version, wait,
--   newest, from, to}, or NOT_PUBLISHED. wait: milliseconds until a further call can admit users,
--   0 for now, −1 when that cannot be foreseen. newest: the last score given to an arrival, 2^40
--   − 1 before the first. from, to: the lowest and the highest admitted score, or −1
--
-- uses: constants guard settings admission_rate bucket active_slot outbox
local LIMIT = 500
redis.call('HLEN', admitted)
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
  if string.match(redis.call('HGET', admitted, user) or '', ' 0$') then
    no_shows = no_shows + 1
  end
  vacate(user)
end

if count > 0 then
  -- The restore window is over once users are admitted again, so its record is not needed any more.
  redis.call('UNLINK', used)
  -- One range read of the front; ZPOPMIN would search for each user.
  local front = redis.call('ZRANGE', waiting, 0, count - 1, 'WITHSCORES')
  redis.call('ZREMRANGEBYRANK', waiting, 0, count - 1)
  local deadline, slots, scores = text(now + claim_ms), {}, {}
  for i = 1, #front, 2 do
    slots[i], slots[i + 1] = deadline, front[i]
    scores[i], scores[i + 1] = front[i], front[i + 1] .. ' 0'
  end
  redis.call('ZADD', active, unpack(slots))
  redis.call('HSET', admitted, unpack(scores))
  admit_count(count)
  from, to = front[2], front[#front]
  emit('promotion', { queue = ARGV[2], from = tonumber(from), to = tonumber(to), count = count,
    at = now })
  publish()
  line, inside, allowed = line - count, inside + count, allowed - count
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
local newest = text(FIRST_ARRIVAL_SCORE - 1 + tonumber(totals[2] or '0'))
return { text(now), mode, line, inside, count, no_shows, #lapsed, totals[1] or '0',
  redis.call('HGET', settings, 'version') or '0', wait, newest,
  from, to }
