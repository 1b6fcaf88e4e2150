#!lua
-- Records which version the records of a partition have, unless they have that or a newer one.
--
-- KEYS: epoch records
-- ARGV: epoch, version, release that writes it
-- Reply: 1 recorded, 0 not
--
-- uses: constants guard
local before = tonumber(string.match(redis.call('GET', records) or '', '^%d+') or '0')
if before >= tonumber(ARGV[2]) then
  return 0
end
redis.call('SET', records, ARGV[2] .. ' ' .. ARGV[3])
return 1
