#!lua flags=no-writes
-- Reads the shape of a queue: its counts, its front, how many users wait before each of some
-- scores, which places were given up since the last call, and what the wait is forecast from.
--
-- KEYS: epoch q:settings q:waiting q:active q:admitted q:bucket q:sales q:left q:turnover
-- ARGV: epoch, the stream id after which given-up places are wanted, then scores in ascending
--   order (≤ 900)
-- Reply: {now, mode, waiting, active, sold_out, admitted, front, newest, cursor,
--   {score given up…}, {how many wait before each score…}, the score below which Redis must be
--   asked, before_opening, lottery, restore_until, {per_interval, interval, max_active,
--   active_ms, claim_ms, sliding, visit_limit_ms}, admissions, {field, value, …} of `turnover`,
--   {deadline, "score base start", …} of some active users}, or NOT_PUBLISHED. front: the lowest
--   waiting score, or −1. newest: the last score given to an arrival. cursor: the stream id for
--   the next call. before_opening, lottery, sliding: 0 or 1. visit_limit_ms: −1 for none.
--   admissions: those of the last interval as "time:count" words. At most 1,000 given-up places.
--   The last two lists are empty unless users are admitted
--
-- uses: constants guard settings sales turnover
local gone, cursor, before = {}, ARGV[2], {}
for i, entry in ipairs(redis.call('XRANGE', left, '(' .. ARGV[2], '+', 'COUNT', 1000)) do
  gone[i], cursor = entry[2][2], entry[1]
end
for i = 3, #ARGV do
  before[i - 2] = redis.call('ZCOUNT', waiting, '-inf', '(' .. ARGV[i])
end
local first = redis.call('ZRANGE', waiting, 0, 0, 'WITHSCORES')[2] or '-1'
local counts = redis.call('HMGET', bucket, 'joined', 'admitted', 'restore_below', 'restore_until',
  'log')
local inside = redis.call('ZCOUNT', active, '(' .. text(now), '+inf')

-- Active users by deadline: all of them, or the nearest ones and an even sample of the others.
local function sample_visits()
  local lapsed = redis.call('ZCOUNT', active, '-inf', text(now))
  local nearest = inside > MAX_SAMPLED_VISITS and NEAREST_VISITS or inside
  local last = lapsed + nearest - 1
  local found = redis.call('ZRANGE', active, lapsed, last, 'WITHSCORES')
  if inside > nearest then
    local others, sampled = inside - nearest, MAX_SAMPLED_VISITS - nearest
    for i = 0, sampled - 1 do
      local rank = lapsed + nearest + math.floor((2 * i + 1) * others / (2 * sampled))
      local one = redis.call('ZRANGE', active, rank, rank, 'WITHSCORES')
      found[#found + 1], found[#found + 2] = one[1], one[2]
    end
  end
  local users, visits = {}, {}
  for i = 1, #found, 2 do
    users[#users + 1] = found[i]
  end
  for i, value in ipairs(redis.call('HMGET', admitted, unpack(users))) do
    visits[2 * i - 1], visits[2 * i] = found[2 * i], value or ''
  end
  return visits
end

local open = mode == 'open'
return { text(now), mode, redis.call('ZCARD', waiting), inside, sold_out(), counts[2] or '0', first,
  text(newest_arrival(counts[1])), cursor, gone, before, counts[3] or '0',
  before_opening and 1 or 0, lottery and 1 or 0, counts[4] or '0',
  { per_interval, interval, max_active, active_ms, claim_ms, sliding and 1 or 0,
    visit_limit_ms or -1 },
  counts[5] or '', open and read_turnover() or {}, open and inside > 0 and sample_visits() or {} }
