#!lua flags=allow-oom
-- Returns issues that attempts of payments reserved or used, once, and always leaves a tombstone,
-- so that a late reservation cannot succeed.
--
-- KEYS: epoch seq outbox coupon_entries c:issues c:uses coupon_ops coupon_ops_due
-- ARGV: epoch, coupon, then for each request: user, issue, payment, attempt
-- Reply: {code…}: NOTHING when the attempt had neither reserved nor used it
-- Codes: 1 GIVEN_BACK 2 NOTHING
--
-- uses: constants guard outbox coupon_entries coupon_issue redemption
redis.call('HLEN', issues)
redis.call('HLEN', uses)
redis.call('HLEN', coupon_ops)
redis.call('ZCARD', coupon_ops_due)

local function give_back(user, issue, payment, attempt)
  local record, op = use_of(issue), issue .. payment .. attempt
  local issued_at = issue_of(user, issue)
  redis.call('HSET', coupon_ops, op, '')
  redis.call('ZADD', coupon_ops_due, now + OPERATION_KEPT_MS, op)
  if not (record and is_by(record, payment, attempt)) then
    return NOTHING
  end
  redis.call('HDEL', uses, issue)
  if record.used_at and issued_at then
    emit('use', { id = issue, coupon = ARGV[2], user = user, issued_at = issued_at, at = now })
  end
  return GIVEN_BACK
end

local replies = {}
for i = 3, #ARGV, 4 do
  replies[#replies + 1] = give_back(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3])
end
note_coupon(ARGV[2])
publish()
return replies
