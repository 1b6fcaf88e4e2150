-- Wallets of a partition: `wallets` user → balance as decimal text; every change leaves an entry in the outbox.
-- Gives: balance_of(user), move(user, entry, kind, amount, balance).
local function balance_of(user)
  return tonumber(redis.call('HGET', wallets, user) or '0')
end
local function move(user, entry, kind, amount, balance)
  redis.call('HSET', wallets, user, text(balance))
  emit('entry', { id = entry, user = user, kind = kind, amount = amount, balance = balance, at = now })
end
