#!lua flags=no-writes
-- Reads the next part of the users who have a coupon. A user who has one at the first call is
-- returned by the time the cursor is 0 again, possibly twice.
--
-- KEYS: epoch c:settings c:issues
-- ARGV: epoch, cursor (0 at first), about how many
-- Reply: {now, issued, edition, version, ends_at, sold out (1 or 0), next cursor, user…}, or
--   NOT_PUBLISHED
--
-- uses: constants guard coupon
local page = redis.call('HSCAN', issues, ARGV[2], 'COUNT', ARGV[3])
local reply = { text(now), count, edition, version, text(ends_at), count >= total and 1 or 0,
  page[1] }
for i = 1, #page[2], 2 do
  reply[#reply + 1] = page[2][i]
end
return reply
