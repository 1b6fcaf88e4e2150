-- Idempotency keys of the users of a partition: user .. key → {fingerprint, …}, kept for
-- IDEMPOTENCY_KEPT_MS (`idempotency_due` has the ends).
-- Gives: KEPT_UNTIL; kept_record(stored text or false) → record or nil; recall(user, key) → record
--   or nil; pack_key(record) → text; remember(user, key, record); forget(user, key).
local KEPT_UNTIL = now + IDEMPOTENCY_KEPT_MS
redis.call('ZCARD', idempotency_due)
local function kept_record(packed)
  local record = packed and cmsgpack.unpack(packed)
  return record and record.kept_until > now and record or nil
end
local function recall(user, key)
  return kept_record(redis.call('HGET', idempotency, user .. key))
end
local function pack_key(record)
  record.kept_until = KEPT_UNTIL
  return cmsgpack.pack(record)
end
local function remember(user, key, record)
  redis.call('HSET', idempotency, user .. key, pack_key(record))
  redis.call('ZADD', idempotency_due, text(KEPT_UNTIL), user .. key)
end
local function forget(user, key)
  redis.call('HDEL', idempotency, user .. key)
  redis.call('ZREM', idempotency_due, user .. key)
end
