-- What payments do with issues. `uses` maps an issue to {payment, attempt, discount, used_at}: it
-- is reserved by that attempt, and used once `used_at` is set. `coupon_ops` has issue .. payment
-- .. attempt of attempts that returned the issue: a tombstone.
-- Gives: use_of(issue) → record or nil, is_by(record, payment, attempt), save_use(issue, record),
--   is_ended(issue, payment, attempt), issued_at_of(user, issue) → milliseconds or nil.
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
local function issued_at_of(user, issue)
  local known = redis.call('HGET', issues, user)
  if known and string.sub(known, 1, 16) == issue then
    return tonumber(string.sub(known, 17))
  end
  return nil
end
