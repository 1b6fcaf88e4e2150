#!lua flags=allow-oom
-- Gives money back to a wallet for a payment that was confirmed and is being cancelled, once per op. Its op is another than the debit's, whose record
-- may be forgotten by then, so the amount comes from the caller. As long as it can't be forgotten it must stand: a wallet that was rolled back or laid back without
-- the debit still has the money.
--
-- KEYS: epoch seq outbox wallets wallet_ops wallet_ops_due tallies
-- ARGV: epoch, largest balance, user, op, entry, amount, op of the debit, when the payment began
-- Reply: {state, balance}: 1 given back, now or before; 2 the balance would be above the largest: it waits until there is room; 3 it was not debited here
-- Codes: 1 REFUNDED 2 NO_ROOM 3 NOT_DEBITED
--
-- uses: constants guard outbox wallet wallet_operations paid_totals
redis.call('HLEN', tallies)
local user, op, entry, amount = ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6])
local balance = balance_of(user)
if op_of(op) then
  return { REFUNDED, text(balance) }
end
if amount > 0 and op_of(ARGV[7]) ~= 'd' and now < tonumber(ARGV[8]) + OPERATION_KEPT_MS then
  return { NOT_DEBITED, text(balance) }
end
if balance + amount > tonumber(ARGV[2]) then
  return { NO_ROOM, text(balance) }
end
if amount > 0 then
  balance = balance + amount
  move(user, entry, 'refund', amount, balance, attempt_of(op))
end
tally(user, -amount, -1)
note_op(op, 'g')
publish()
return { REFUNDED, text(balance) }
