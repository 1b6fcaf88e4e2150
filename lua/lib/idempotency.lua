-- Idempotency keys of the users of a partition: user .. key → {fingerprint, …}, kept for
-- IDEMPOTENCY_KEPT_MS (`idempotency_due` has the ends).
-- Gives: recall(user, key) → record or nil; remember(user, key, record); forget(user, key).
local KEPT_UNTIL = now + IDEMPOTENCY_KEPT_MS
redis.call('ZCARD', idempotency_due)
local function recall(user, key)
  local packed = redis.call('HGET', idempotency, user .. key)
  if not packed then
    return nil
  end
  local record = cmsgpack.unpack(packed)
  return record.kept_until > now and record or nil
end
local function remember(user, key, record)
  record.kept_until = KEPT_UNTIL
  redis.call('HSET', idempotency, user .. key, cmsgpack.pack(record))
  redis.call('ZADD', idempotency_due, text(KEPT_UNTIL), user .. key)
end
local function forget(user, key)
  redis.call('HDEL', idempotency, user .. key)
  redis.call('ZREM', idempotency_due, user .. key)
end
