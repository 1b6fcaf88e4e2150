#!lua flags=no-writes
-- Returns which issue of a coupon each user has.
--
-- KEYS: epoch c:issues c:uses
-- ARGV: epoch, then for each request: user
-- Reply: {{issue, issued_at, terms, used_at}…}: used_at is empty unless it is used; an empty list
--   for a user without an issue
--
-- uses: constants guard coupon_issue
local replies = {}
for i = 2, #ARGV do
  local known, reply = redis.call('HGET', issues, ARGV[i]), {}
  if known then
    local id, at, terms = parse_issue(known)
    reply = { id, at, terms, used_at(id) }
  end
  replies[#replies + 1] = reply
end
return replies
