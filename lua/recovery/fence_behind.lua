#!lua flags=allow-oom
-- Fences a partition of which MySQL lacks entries that it had: no script runs on it until the
-- writer has written them again. The entries count as not written from now on.
--
-- KEYS: epoch written kept
-- ARGV: epoch, checkpoint in MySQL, fence
-- Reply: a code
-- Codes: 1 FENCED 2 NOT_BEHIND
--
-- uses: constants guard
if tonumber(redis.call('GET', written) or '0') <= tonumber(ARGV[2]) then
  return NOT_BEHIND
end
redis.call('SET', epoch, ARGV[3])
redis.call('SET', written, ARGV[2])
redis.call('UNLINK', kept)
return FENCED
