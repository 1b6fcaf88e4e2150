#!lua
-- Replaces the fence that the caller knows: by the fence of a recovery, or at the end of the
-- recovery by the new epoch.
--
-- KEYS: epoch
-- ARGV: epoch, the new fence or epoch
-- Reply: 1
--
-- uses: constants guard
redis.call('SET', epoch, ARGV[2])
return 1
