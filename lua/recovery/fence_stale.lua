#!lua
-- Fences a partition that is older than the checkpoint in MySQL: its epoch is replaced by a
-- fence, so that no script runs on it any more.
--
-- KEYS: epoch seq
-- ARGV: epoch, checkpoint, fence
-- Reply: a code
-- Codes: 1 FENCED 2 NOT_OLDER
--
-- uses: constants guard
if tonumber(redis.call('GET', seq) or '0') >= tonumber(ARGV[2]) then
  return NOT_OLDER
end
redis.call('SET', epoch, ARGV[3])
return FENCED
