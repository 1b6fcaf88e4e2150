#!lua
-- Counts a concert's sold seats into the sales of its queue.
--
-- KEYS: generation q:sales
-- ARGV: generation, how many of its seats are sold
-- Reply: how many are sold in the queue
--
-- uses: guard
return redis.call('HINCRBY', sales, 'sold', ARGV[2])
