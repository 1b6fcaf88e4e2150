#!lua
-- Repeats the debit of a confirmed payment that was lost with its partition, once for each
-- operation id. Money that filled the wallet and was lost too is restored as a charge: up to the
-- balance before the debit, or, when that is not known, as much as the debit needs.
--
-- KEYS: epoch seq outbox wallets wallet_ops wallet_ops_due tallies
-- ARGV: epoch, user, operation (payment and attempt), amount, the balance before it (empty: not
--   known), entry of the debit, entry of the charge, reservation
-- Reply: a code: KNOWN, the debit was there
-- Codes: 1 DEBITED 2 KNOWN
--
-- uses: constants guard outbox wallet wallet_operations paid_totals
redis.call('HLEN', tallies)
local user, op, amount = ARGV[2], ARGV[3], tonumber(ARGV[4])
if op_of(op) then
  return KNOWN
end
local balance = balance_of(user)
local missing = ARGV[5] ~= '' and tonumber(ARGV[5]) - balance or balance < amount and amount or 0
if missing > 0 then
  balance = balance + missing
  move(user, ARGV[7], 'charge', missing, balance, {})
end
balance = balance - amount
move(user, ARGV[6], 'payment', amount, balance, attempt_of(op, ARGV[8]))
add_totals(user, amount, 1)
note_op(op, 'd' .. text(amount) .. ':' .. text(balance))
publish()
return DEBITED
