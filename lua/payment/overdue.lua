#!lua
-- Hands out payments that are past their due time and gives the caller a while to drive them to an end before the next one is asked.
--
-- KEYS: generation payments q:due
-- ARGV: generation, how many at most (≤ 256), the while in milliseconds
-- Reply: {payment record…}
--
-- uses: guard payment
local replies = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', due, '-inf', text(now), 'LIMIT', 0, tonumber(ARGV[2]))) do
  local p = load_payment(id)
  if p then
    redis.call('ZADD', due, now + tonumber(ARGV[3]), id)
    replies[#replies + 1] = cmsgpack.pack(p)
  else
    redis.call('ZREM', due, id)
  end
end
return replies
