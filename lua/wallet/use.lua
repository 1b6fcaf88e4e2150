#!lua
-- Takes money out of wallets, once per idempotency key and never below nothing.
--
-- KEYS: generation seq outbox wallets idempotency idempotency_due
-- ARGV: generation, then for each request: user, key, fingerprint, entry, amount
-- Reply: {{state, entry, amount, balance, at}…}: 1 used; 2 used before under this key; 3 the key belongs to another request; 4 the balance does not suffice
--
-- uses: guard outbox idempotency wallet
local USED, REPLAYED, REUSED, INSUFFICIENT = 1, 2, 3, 4
local function use(user, key, fingerprint, entry, amount)
  local record, balance = recall(user, key), balance_of(user)
  if record then
    if record.fingerprint ~= fingerprint then
      return { REUSED, '', '', '', '' }
    end
    return { REPLAYED, record.thing, text(record.amount), text(record.balance), text(record.at) }
  end
  if balance < amount then
    return { INSUFFICIENT, '', '', '', '' }
  end
  balance = balance - amount
  move(user, entry, 'use', amount, balance)
  remember(user, key, { fingerprint = fingerprint, thing = entry, amount = amount, balance = balance, at = now })
  return { USED, entry, text(amount), text(balance), text(now) }
end
local replies = {}
for i = 2, #ARGV, 5 do
  replies[#replies + 1] = use(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], tonumber(ARGV[i + 4]))
end
publish()
return replies
