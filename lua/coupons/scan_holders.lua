#!lua flags=no-writes
-- Reads on through the users who have the coupon. Whoever has one at the first call is named by the time the cursor is 0 again, some perhaps twice.
--
-- KEYS: epoch c:settings c:issues
-- ARGV: epoch, cursor (0 at first), about how many
-- Reply: {now, issued, edition, version, ends_at, sold out (1 or 0), next cursor, user…}; −2 the coupon has no settings
--
-- uses: constants guard coupon
local page = redis.call('HSCAN', issues, ARGV[2], 'COUNT', ARGV[3])
local reply = { text(now), count, edition, version, text(ends_at), count >= total and 1 or 0, page[1] }
for i = 1, #page[2], 2 do
  reply[#reply + 1] = page[2][i]
end
return reply
