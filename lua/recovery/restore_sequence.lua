#!lua
-- Sets the partition's sequence to the checkpoint, so that the next outbox entry is the one after it.
--
-- KEYS: epoch seq
-- ARGV: epoch, checkpoint
-- Reply: 1
--
-- uses: constants guard
redis.call('SET', seq, ARGV[2])
return 1
