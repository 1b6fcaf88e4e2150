-- Refuses to run under another epoch than the caller knows, then reads the one clock once.
-- Gives: now (milliseconds), text(n) (a whole number as decimal text; tostring would round above 1e14).
if redis.call('GET', epoch) ~= ARGV[1] then
  return STALE_EPOCH
end
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local function text(n)
  return string.format('%d', n)
end
