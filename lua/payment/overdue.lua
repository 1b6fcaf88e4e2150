#!lua flags=allow-oom
-- Returns payments that are past their due time and postpones that time by a lease, so that one
-- caller at a time drives each of them to its end. A payment that does not end is leased
-- repeatedly, so it stays among the first; the oldest of those shows how long any payment has
-- been without an end.
--
-- KEYS: epoch payments q:due
-- ARGV: epoch, how many at most (≤ 256), the lease in milliseconds
-- Reply: {for how many milliseconds the oldest has been without an end, payment record…}
--
-- uses: constants guard payment
local FIRST = 32
local oldest = now
for _, id in ipairs(redis.call('ZRANGE', due, 0, FIRST - 1)) do
  local p = load_payment(id)
  -- Until its time is over, an external payment is not late.
  local since = p and (p.state == 'pending' and p.external and p.external.due_at or p.at)
  oldest = math.min(oldest, since or oldest)
end
local replies = { text(now - oldest) }
for _, id in ipairs(redis.call('ZRANGEBYSCORE', due, '-inf', text(now), 'LIMIT', 0,
  tonumber(ARGV[2]))) do
  local p = load_payment(id)
  if p then
    redis.call('ZADD', due, now + tonumber(ARGV[3]), id)
    replies[#replies + 1] = cmsgpack.pack(p)
  else
    redis.call('ZREM', due, id)
  end
end
return replies
