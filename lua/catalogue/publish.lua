#!lua
-- Publishes the version of a concert that may be booked. Holds of any other version are refused
-- from then on. The caller holds the row lock of the definitions in MySQL.
--
-- KEYS: epoch q:concerts q:sales
-- ARGV: epoch, concert, version, seats (0 removes the concert from this queue)
-- Reply: 1
--
-- uses: constants guard
redis.call('HLEN', sales)
local before = tonumber(string.match(redis.call('HGET', concerts, ARGV[2]) or '', ' (%d+)$')
  or '0')
local seats = tonumber(ARGV[4])
if seats > 0 then
  redis.call('HSET', concerts, ARGV[2], ARGV[3] .. ' ' .. ARGV[4])
else
  redis.call('HDEL', concerts, ARGV[2])
end
redis.call('HINCRBY', sales, 'capacity', text(seats - before))
return 1
