#!lua
-- Restores idempotency keys with their first answers. Keys whose retention is over are left out.
--
-- KEYS: epoch idempotency idempotency_due
-- ARGV: epoch, then for each key: user, key, fingerprint, object, amount, balance (both empty for
--   an object with its own response), when it was bound
-- Reply: how many were restored
--
-- uses: constants guard idempotency
local laid = 0
for i = 2, #ARGV, 7 do
  local at = tonumber(ARGV[i + 6])
  local record = { fingerprint = ARGV[i + 2], thing = ARGV[i + 3],
    kept_until = at + IDEMPOTENCY_KEPT_MS }
  if ARGV[i + 4] ~= '' then
    record.amount, record.balance, record.at = tonumber(ARGV[i + 4]), tonumber(ARGV[i + 5]), at
  end
  if record.kept_until > now then
    redis.call('HSET', idempotency, ARGV[i] .. ARGV[i + 1], cmsgpack.pack(record))
    redis.call('ZADD', idempotency_due, record.kept_until, ARGV[i] .. ARGV[i + 1])
    laid = laid + 1
  end
end
return laid
