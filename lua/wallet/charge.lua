#!lua
-- Adds money to wallets, once for each idempotency key. Room is left for the refund of all that
-- the user has paid, so that a refund always fits.
--
-- KEYS: epoch seq outbox wallets idempotency idempotency_due tallies
-- ARGV: epoch, largest balance, then for each request: user, key, fingerprint, entry, amount,
--   reference (empty: none)
-- Reply: {{movement code, entry, amount, balance, at}…}: REFUSED, the balance would be above the
--   largest
--
-- uses: constants guard outbox idempotency wallet paid_totals bulk movement
local largest, first = tonumber(ARGV[2]), 3
local totals = redis.call('HMGET', tallies, unpack(users_from(first)))
local replies = move_all(first, 'charge', function(balance, amount, nth)
  local after = balance + amount
  return after <= largest and leaves_room(totals[nth], after) and after or nil
end)
publish()
return replies
