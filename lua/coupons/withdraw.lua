#!lua
-- Takes the settings of a coupon out of Redis: none is issued until they are published again.
-- Refuses when one was issued.
--
-- KEYS: epoch c:settings c:issues
-- ARGV: epoch, how many issues to return at most
-- Reply: {issue…}: some of the issues in the way; nothing was changed unless it is empty
--
-- uses: constants guard
local limit = tonumber(ARGV[2])
redis.call('HLEN', settings)
if redis.call('HLEN', issues) == 0 then
  redis.call('UNLINK', settings)
  return {}
end
local found, reply = redis.call('HSCAN', issues, '0', 'COUNT', limit)[2], {}
for i = 2, math.min(#found, 2 * limit), 2 do
  reply[#reply + 1] = string.sub(found[i], 1, 16)
end
return reply
