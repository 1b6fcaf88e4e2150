#!lua
-- Bars a partition that is older than MySQL's checkpoint: its generation gives way to a bar, so that no script runs on it any more.
--
-- KEYS: generation seq
-- ARGV: generation, checkpoint, bar
-- Reply: 1 barred, 2 it is not older
--
-- uses: guard
local BARRED, NOT_OLDER = 1, 2
if tonumber(redis.call('GET', seq) or '0') >= tonumber(ARGV[2]) then
  return NOT_OLDER
end
redis.call('SET', generation, ARGV[3])
return BARRED
