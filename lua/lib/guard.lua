-- Refuses to run under an epoch other than the one in Redis, then reads the clock once.
-- Gives: now (milliseconds), text(n) (an integer as decimal text; tostring would round above
--   1e14).
if redis.call('GET', epoch) ~= ARGV[1] then
  return STALE_EPOCH
end
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local function text(n)
  return string.format('%d', n)
end
