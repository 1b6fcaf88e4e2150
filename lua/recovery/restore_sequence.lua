#!lua
-- Sets the sequence of a partition to the checkpoint, so that the next outbox entry follows
-- it. MySQL has everything up to there.
--
-- KEYS: epoch seq written
-- ARGV: epoch, checkpoint
-- Reply: 1
--
-- uses: constants guard
redis.call('SET', seq, ARGV[2])
redis.call('SET', written, ARGV[2])
return 1
