#!lua
-- Adds money to wallets, once for each idempotency key.
--
-- KEYS: epoch seq outbox wallets idempotency idempotency_due
-- ARGV: epoch, largest balance, then for each request: user, key, fingerprint, entry, amount
-- Reply: {{movement code, entry, amount, balance, at}…}: REFUSED, the balance would be above the
--   largest
--
-- uses: constants guard outbox idempotency wallet movement
local largest = tonumber(ARGV[2])
local replies = move_all(3, 'charge', function(balance, amount)
  return balance + amount <= largest and balance + amount or nil
end)
publish()
return replies
