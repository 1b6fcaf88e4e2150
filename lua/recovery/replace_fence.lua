#!lua
-- Puts another fence in place of the one that the caller knows: a recovery's bar for a bar, or at its end the new epoch.
--
-- KEYS: epoch
-- ARGV: epoch, the other fence
-- Reply: 1
--
-- uses: constants guard
redis.call('SET', epoch, ARGV[2])
return 1
