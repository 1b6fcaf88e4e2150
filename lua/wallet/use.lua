#!lua
-- Takes money out of wallets, once for each idempotency key, never below 0.
--
-- KEYS: epoch seq outbox wallets idempotency idempotency_due
-- ARGV: epoch, then for each request: user, key, fingerprint, entry, amount, reference (empty:
--   none)
-- Reply: {{movement code, entry, amount, balance, at}…}: REFUSED, the balance does not suffice
--
-- uses: constants guard outbox idempotency wallet bulk movement
local replies = move_all(2, 'use', function(balance, amount)
  return balance >= amount and balance - amount or nil
end)
publish()
return replies
