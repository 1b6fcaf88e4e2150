-- Claims that a refund can revoke: `revocable` maps a user to a list of {claim, reward, points,
-- terms}, where terms are the conditions at the claim (JSON text).
-- Gives: revocable_of(user), save_revocable(user, list).
redis.call('HLEN', revocable)
local function revocable_of(user)
  local packed = redis.call('HGET', revocable, user)
  return packed and cmsgpack.unpack(packed) or {}
end
local function save_revocable(user, list)
  if #list == 0 then
    redis.call('HDEL', revocable, user)
  else
    redis.call('HSET', revocable, user, cmsgpack.pack(list))
  end
end
