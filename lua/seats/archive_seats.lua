#!lua
-- Drops the seats of an archived concert's schedule; its sold seats count no more in its queue.
--
-- KEYS: epoch q:sales s:seats
-- ARGV: epoch, how many seats of it are sold
-- Reply: 1 dropped, 0 they were gone
--
-- uses: constants guard
redis.call('HLEN', sales)
local there = redis.call('UNLINK', seats)
if there == 1 then
  redis.call('HINCRBY', sales, 'sold', -tonumber(ARGV[2]))
end
return there
