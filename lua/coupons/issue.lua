#!lua
-- Issues a coupon to users: at most the quota, one each. A user who has one is told of it again, whatever the window and the quota say now.
--
-- KEYS: generation seq outbox c:settings c:issues c:uses
-- ARGV: generation, coupon, then for each request: user, issue
-- Reply: {{state, issue, issued_at, used_at}…}
--   1 issued now; 2 issued before: used_at is empty unless it is used
--   3 sold out; 4 not started; 5 ended: no more words; −2 the coupon has no settings
--
-- uses: guard coupon outbox
local ISSUED, KNOWN, SOLD_OUT, NOT_STARTED, ENDED = 1, 2, 3, 4, 5
redis.call('HLEN', uses)

local function used_at(issue)
  local packed = redis.call('HGET', uses, issue)
  local at = packed and cmsgpack.unpack(packed).used_at
  return at and text(at) or ''
end

local function issue(user, id)
  local known = redis.call('HGET', issues, user)
  if known then
    id = string.sub(known, 1, 16)
    return { KNOWN, id, string.sub(known, 17), used_at(id) }
  end
  if now < starts_at then
    return { NOT_STARTED }
  end
  if now >= ends_at then
    return { ENDED }
  end
  if count >= quota then
    return { SOLD_OUT }
  end
  count = count + 1
  redis.call('HSET', issues, user, id .. text(now))
  emit('issue', { id = id, coupon = ARGV[2], user = user, issued_at = now })
  return { ISSUED, id, text(now), '' }
end

local replies = {}
for i = 3, #ARGV, 2 do
  replies[#replies + 1] = issue(ARGV[i], ARGV[i + 1])
end
publish()
return replies
