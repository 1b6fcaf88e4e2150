#!lua
-- Sets the sequence of a partition to the checkpoint, so that the next outbox entry follows it.
--
-- KEYS: epoch seq
-- ARGV: epoch, checkpoint
-- Reply: 1
--
-- uses: constants guard
redis.call('SET', seq, ARGV[2])
return 1
