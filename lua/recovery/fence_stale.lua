#!lua
-- Bars a partition that is older than MySQL's checkpoint: its epoch gives way to a bar, so that no script runs on it any more.
--
-- KEYS: epoch seq
-- ARGV: epoch, checkpoint, bar
-- Reply: 1 barred, 2 it is not older
-- Codes: 1 FENCED 2 NOT_OLDER
--
-- uses: constants guard
if tonumber(redis.call('GET', seq) or '0') >= tonumber(ARGV[2]) then
  return NOT_OLDER
end
redis.call('SET', epoch, ARGV[3])
return FENCED
