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
-- uses: constants guard outbox idempotency wallet paid_totals movement
redis.call('HLEN', tallies)
local largest = tonumber(ARGV[2])
local replies = move_all(3, 'charge', function(user, balance, amount)
  local after = balance + amount
  return after <= largest and leaves_room(user, after) and after or nil
end)
publish()
return replies
