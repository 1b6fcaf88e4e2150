#!lua
-- Puts money into wallets, once per idempotency key.
--
-- KEYS: epoch seq outbox wallets idempotency idempotency_due
-- ARGV: epoch, largest balance, then for each request: user, key, fingerprint, entry, amount
-- Reply: {{state, entry, amount, balance, at}…}: 1 charged; 2 charged before under this key; 3 the key belongs to another request; 4 above the largest balance
--
-- uses: constants guard outbox idempotency wallet movement
local largest = tonumber(ARGV[2])
local replies = move_all(3, 'charge', function(balance, amount)
  return balance + amount <= largest and balance + amount or nil
end)
publish()
return replies
