#!lua
-- Puts another fence in place of the one that the caller knows: a recovery's bar for a bar, or at its end the new generation.
--
-- KEYS: generation
-- ARGV: generation, the other fence
-- Reply: 1
--
-- uses: guard
redis.call('SET', generation, ARGV[2])
return 1
