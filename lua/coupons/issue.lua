#!lua
-- Issues a coupon to users: at most the quota, one for each user. A user who has one gets the
-- same issue again, whatever the window and the quota are now.
--
-- KEYS: epoch seq outbox coupon_entries c:settings c:issues c:uses
-- ARGV: epoch, coupon, the requests in one string: for each the sixteen bytes of the user and the
--   sixteen bytes of the new issue
-- Reply: {now, terms of new issues, then for each request a code, or {KNOWN, issue, issued_at,
--   terms, used_at}; used_at is empty unless the issue is used}, or NOT_PUBLISHED
-- Codes: 1 ISSUED 2 KNOWN 3 SOLD_OUT 4 NOT_STARTED 5 ENDED
--
-- uses: constants guard coupon coupon_issue outbox coupon_entries
local ID, REQUEST = 16, 32
local requests, users = ARGV[3], {}
for at = 1, #requests, REQUEST do
  users[#users + 1] = string.sub(requests, at, at + ID - 1)
end
redis.call('HLEN', uses)
local known = redis.call('HMGET', issues, unpack(users))

local shut = now < starts_at and NOT_STARTED or now >= ends_at and ENDED
local stamp, given, added, fresh = text(now) .. ':' .. terms, {}, {}, {}
local replies = { text(now), terms }
for i, user in ipairs(users) do
  -- A user may ask twice in one call.
  local record = known[i] or given[user]
  if record then
    local id, at, known_terms = parse_issue(record)
    replies[#replies + 1] = { KNOWN, id, at, known_terms, used_at(id) }
  elseif shut then
    replies[#replies + 1] = shut
  elseif count >= quota then
    replies[#replies + 1] = SOLD_OUT
  else
    local request = string.sub(requests, (i - 1) * REQUEST + 1, i * REQUEST)
    count = count + 1
    given[user] = string.sub(request, ID + 1) .. stamp
    added[#added + 1] = user
    added[#added + 1] = given[user]
    fresh[#fresh + 1] = request
    replies[#replies + 1] = ISSUED
  end
end
if #added > 0 then
  redis.call('HSET', issues, unpack(added))
  emit('issues', { coupon = ARGV[2], issued_at = now, terms = terms,
    pairs = table.concat(fresh) })
  note_coupon(ARGV[2])
end
publish()
return replies
