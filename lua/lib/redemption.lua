-- What payments do with issues. `uses` maps an issue to {payment, attempt, discount, used_at}: it
-- is reserved by that attempt, and used once `used_at` is set. `coupon_ops` has issue .. payment
-- .. attempt of attempts that returned the issue: a tombstone.
-- Gives: use_of(issue) → record or nil, is_by(record, payment, attempt), save_use(issue, record),
--   is_ended(issue, payment, attempt), issue_of(user, issue) → when it was issued and its terms,
--   or nil when the user does not have it. Uses coupon_issue.
local function use_of(issue)
  local packed = redis.call('HGET', uses, issue)
  return packed and cmsgpack.unpack(packed) or nil
end
local function is_by(record, payment, attempt)
  return record.payment == payment and record.attempt == attempt
end
local function save_use(issue, record)
  redis.call('HSET', uses, issue, cmsgpack.pack(record))
end
local function is_ended(issue, payment, attempt)
  return redis.call('HEXISTS', coupon_ops, issue .. payment .. attempt) == 1
end
local function issue_of(user, issue)
  local known = redis.call('HGET', issues, user)
  if not known then
    return nil
  end
  local id, at, terms = parse_issue(known)
  if id == issue then
    return tonumber(at), terms
  end
  return nil
end
