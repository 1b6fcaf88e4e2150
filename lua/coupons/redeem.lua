#!lua flags=allow-oom
-- Marks issues as used by payments that are confirmed. An issue that was returned since, because
-- its payment was cancelled, stays returned.
--
-- KEYS: epoch seq outbox coupon_entries c:issues c:uses coupon_ops
-- ARGV: epoch, coupon, then for each request: user, issue, payment, attempt, discount
-- Reply: {code…}: USED, now or before; GIVEN_BACK, before; NOT_THEIRS, the issue belongs to
--   another user or payment
-- Codes: 1 USED 2 GIVEN_BACK 3 NOT_THEIRS
--
-- uses: constants guard outbox coupon_entries coupon_issue redemption
redis.call('HLEN', issues)
redis.call('HLEN', uses)
redis.call('HLEN', coupon_ops)

local function settle(user, issue, payment, attempt, discount)
  local record, issued_at = use_of(issue), issue_of(user, issue)
  if is_ended(issue, payment, attempt) then
    return GIVEN_BACK
  end
  if not issued_at or record and not is_by(record, payment, attempt) then
    return NOT_THEIRS
  end
  if not (record and record.used_at) then
    save_use(issue, { payment = payment, attempt = attempt, discount = discount, used_at = now })
    emit('use', { id = issue, coupon = ARGV[2], user = user, issued_at = issued_at,
      used_at = now, payment = payment, at = now })
  end
  return USED
end

local replies = {}
for i = 3, #ARGV, 5 do
  replies[#replies + 1] = settle(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3],
    tonumber(ARGV[i + 4]))
end
note_coupon(ARGV[2])
publish()
return replies
