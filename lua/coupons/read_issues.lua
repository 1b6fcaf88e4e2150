#!lua flags=no-writes
-- Returns which issue of a coupon each user has.
--
-- KEYS: epoch c:issues c:uses
-- ARGV: epoch, then for each request: user
-- Reply: {{issue, issued_at, used_at}…}: used_at is empty unless it is used; an empty list for a
--   user without an issue
--
-- uses: constants guard
local replies = {}
for i = 2, #ARGV do
  local known, reply = redis.call('HGET', issues, ARGV[i]), {}
  if known then
    local id = string.sub(known, 1, 16)
    local packed = redis.call('HGET', uses, id)
    local at = packed and cmsgpack.unpack(packed).used_at
    reply = { id, string.sub(known, 17), at and text(at) or '' }
  end
  replies[#replies + 1] = reply
end
return replies
