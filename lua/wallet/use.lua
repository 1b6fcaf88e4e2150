#!lua
-- Takes money out of wallets, once per idempotency key and never below nothing.
--
-- KEYS: epoch seq outbox wallets idempotency idempotency_due
-- ARGV: epoch, then for each request: user, key, fingerprint, entry, amount
-- Reply: {{state, entry, amount, balance, at}…}: 1 used; 2 used before under this key; 3 the key belongs to another request; 4 the balance does not suffice
--
-- uses: constants guard outbox idempotency wallet movement
local replies = move_all(2, 'use', function(balance, amount)
  return balance >= amount and balance - amount or nil
end)
publish()
return replies
