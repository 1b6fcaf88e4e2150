#!lua
-- Takes back lapsed slots and lets the front of the line in: at most `per_interval` an interval, never above `max_active`, in score order.
-- Any instance may call it at any time; the bucket decides. At most 500 slots are taken back and 500 users let in a call.
--
-- KEYS: epoch seq outbox q:settings q:waiting q:active q:admitted q:bucket q:used
-- ARGV: epoch, queue
-- Reply: {now, mode, waiting, active, promoted, no_shows, lapsed, admitted, version, wait, newest, from, to}
--   wait: milliseconds until a further call can let anybody in as things stand; 0 at once, −1 not foreseeable
--   newest: the last score dealt to an arrival, 2^40 − 1 before the first; from, to: the lowest and highest score let in, or −1
--   −2 the queue has no settings
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
  -- Whoever is let in ends the window in which the line stood up again: what it kept for that is not needed any more.
  redis.call('UNLINK', used)
  -- One walk along the front of the line; ZPOPMIN would search for each of them.
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
  emit('promotion', { queue = ARGV[2], from = tonumber(from), to = tonumber(to), count = count, at = now })
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
return { text(now), mode, line, inside, count, no_shows, #lapsed, totals[1] or '0', redis.call('HGET', settings, 'version') or '0', wait, newest,
  from, to }
