#!lua
-- Deletes the seats of a schedule of an archived concert; its sold seats do not count in its
-- queue any more.
--
-- KEYS: epoch q:sales s:seats
-- ARGV: epoch, how many of its seats are sold
-- Reply: 1 deleted, 0 they did not exist
--
-- uses: constants guard
redis.call('HLEN', sales)
local there = redis.call('UNLINK', seats)
if there == 1 then
  redis.call('HINCRBY', sales, 'sold', -tonumber(ARGV[2]))
end
return there
