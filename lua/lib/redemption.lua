-- What payments do with issues. `uses` issue → {payment, attempt, discount, used_at}: taken by that attempt, and used once `used_at` stands in it.
-- `coupon_ops` holds issue .. payment .. attempt of attempts that gave the issue back: a tombstone, kept for seven days like the wallet's.
-- Gives: use_of(issue) → record or nil, is_by(record, payment, attempt), save_use(issue, record), is_ended(issue, payment, attempt), issued_at_of(user, issue) → ms or nil.
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
