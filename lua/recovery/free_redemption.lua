#!lua flags=allow-oom
-- Frees an issue that was reserved or used by a payment that does not exist, once, and leaves a
-- tombstone, so that a late reservation cannot succeed.
--
-- KEYS: epoch seq outbox coupon_entries c:issues c:uses coupon_ops coupon_ops_due
-- ARGV: epoch, coupon, issue, payment, the user of the issue and when it was issued (both empty
--   when MySQL does not have it as used)
-- Reply: a code: NOT_THEIRS, the issue is not that payment's
-- Codes: 1 FREED 2 NOT_THEIRS
--
-- uses: constants guard outbox coupon_entries coupon_issue redemption
redis.call('HLEN', issues)
redis.call('HLEN', coupon_ops)
redis.call('ZCARD', coupon_ops_due)
local issue, payment, user = ARGV[3], ARGV[4], ARGV[5]
local record = use_of(issue)
if not record or record.payment ~= payment then
  return NOT_THEIRS
end
local op = issue .. payment .. record.attempt
redis.call('HDEL', uses, issue)
redis.call('HSET', coupon_ops, op, '')
redis.call('ZADD', coupon_ops_due, now + OPERATION_KEPT_MS, op)
if user ~= '' then
  emit('use', { id = issue, coupon = ARGV[2], user = user, issued_at = tonumber(ARGV[6]),
    at = now })
end
note_coupon(ARGV[2])
publish()
return FREED
