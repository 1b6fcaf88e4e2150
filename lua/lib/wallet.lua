-- Wallets of a partition: `wallets` user → balance as decimal text; every change leaves an entry in the outbox.
-- `of` says what the entry belongs to, for whoever lays the partition back: {key, fingerprint} of the request, or {payment, attempt} (attempt nil: the way back).
-- Gives: balance_of(user), move(user, entry, kind, amount, balance, of).
local function balance_of(user)
  return tonumber(redis.call('HGET', wallets, user) or '0')
end
local function move(user, entry, kind, amount, balance, of)
  redis.call('HSET', wallets, user, text(balance))
  emit('entry', {
    id = entry, user = user, kind = kind, amount = amount, balance = balance, at = now,
    key = of.key, fingerprint = of.fingerprint, payment = of.payment, attempt = of.attempt,
  })
end
