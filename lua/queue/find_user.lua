#!lua flags=no-writes
-- Returns the place of a user in a queue, whatever their score.
--
-- KEYS: epoch q:waiting q:active q:admitted
-- ARGV: epoch, user
-- Reply: {code, score, end of the active slot in milliseconds (0 while waiting)}
-- Codes: 1 WAITING 2 ACTIVE 3 ABSENT
--
-- uses: constants guard
local admission = redis.call('HGET', admitted, ARGV[2])
local deadline = redis.call('ZSCORE', active, ARGV[2])
if admission and deadline and tonumber(deadline) > now then
  return { ACTIVE, string.match(admission, '^%d+'), deadline }
end
local score = redis.call('ZSCORE', waiting, ARGV[2])
if score then
  return { WAITING, score, '0' }
end
return { ABSENT, '0', '0' }
