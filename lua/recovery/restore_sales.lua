#!lua
-- Adds the sold seats of a concert to the sales of its queue.
--
-- KEYS: epoch q:sales
-- ARGV: epoch, how many of its seats are sold
-- Reply: how many are sold in the queue
--
-- uses: constants guard
return redis.call('HINCRBY', sales, 'sold', ARGV[2])
