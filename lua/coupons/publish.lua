#!lua
-- Publishes the settings of a coupon, unless its quota would be below what is issued. The caller
-- holds the row lock of the definitions in MySQL. A quota that is raised while the coupon is sold
-- out takes effect only after a delay, so that every instance can drop its memory of "sold out"
-- first.
--
-- KEYS: epoch c:settings c:issues
-- ARGV: epoch, version, edition, total (empty: unlimited), starts_at, ends_at, discount (text),
--   valid_seconds and valid_until (empty: no limit), the delay in milliseconds
-- Reply: {code, issued, milliseconds until the raised quota takes effect}; IN_USE: more are
--   issued than the quota, nothing changed
-- Codes: 1 PUBLISHED 2 IN_USE
--
-- uses: constants guard
local count, total = redis.call('HLEN', issues), tonumber(ARGV[4]) or math.huge
local before = redis.call('HMGET', settings, 'total', 'held', 'held_until')
if count > total then
  return { IN_USE, count, 0 }
end
local wait, held_until = 0, 0
if before[1] then
  local quota = tonumber(before[1]) or math.huge
  if now < tonumber(before[3]) then
    quota = math.min(quota, tonumber(before[2]))
  end
  if count >= quota then
    wait = tonumber(ARGV[10])
    held_until = total > count and now + wait or 0
  end
end
redis.call('HSET', settings, 'version', ARGV[2], 'edition', ARGV[3], 'total', ARGV[4],
  'starts_at', ARGV[5], 'ends_at', ARGV[6],
  'discount', ARGV[7], 'valid_seconds', ARGV[8], 'valid_until', ARGV[9], 'held', count, 'held_until', text(held_until))
return { PUBLISHED, count, wait }
