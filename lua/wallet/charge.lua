#!lua
-- Puts money into wallets, once per idempotency key.
--
-- KEYS: generation seq outbox wallets idempotency idempotency_due
-- ARGV: generation, largest balance, then for each request: user, key, fingerprint, entry, amount
-- Reply: {{state, entry, amount, balance, at}…}: 1 charged; 2 charged before under this key; 3 the key belongs to another request; 4 above the largest balance
--
-- uses: guard outbox idempotency wallet
local CHARGED, REPLAYED, REUSED, ABOVE_LIMIT = 1, 2, 3, 4
local largest = tonumber(ARGV[2])
local function charge(user, key, fingerprint, entry, amount)
  local record, balance = recall(user, key), balance_of(user)
  if record then
    if record.fingerprint ~= fingerprint then
      return { REUSED, '', '', '', '' }
    end
    return { REPLAYED, record.thing, text(record.amount), text(record.balance), text(record.at) }
  end
  balance = balance + amount
  if balance > largest then
    return { ABOVE_LIMIT, '', '', '', '' }
  end
  move(user, entry, 'charge', amount, balance)
  remember(user, key, { fingerprint = fingerprint, thing = entry, amount = amount, balance = balance, at = now })
  return { CHARGED, entry, text(amount), text(balance), text(now) }
end
local replies = {}
for i = 3, #ARGV, 5 do
  replies[#replies + 1] = charge(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], tonumber(ARGV[i + 4]))
end
publish()
return replies
