#!lua
-- Sets the partition's sequence to the checkpoint, so that the next outbox entry is the one after it.
--
-- KEYS: generation seq
-- ARGV: generation, checkpoint
-- Reply: 1
--
-- uses: guard
redis.call('SET', seq, ARGV[2])
return 1
