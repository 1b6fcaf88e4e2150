#!lua flags=allow-oom
-- Reopens a partition that recovery/fence_behind fenced, once MySQL has its whole outbox again.
--
-- KEYS: epoch seq
-- ARGV: epoch (the fence), checkpoint in MySQL, the epoch of the partition
-- Reply: a code
-- Codes: 1 REOPENED 2 NOT_WRITTEN
--
-- uses: constants guard
if tonumber(redis.call('GET', seq) or '0') > tonumber(ARGV[2]) then
  return NOT_WRITTEN
end
redis.call('SET', epoch, ARGV[3])
return REOPENED
