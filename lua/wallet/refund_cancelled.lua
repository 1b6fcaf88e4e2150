#!lua flags=allow-oom
-- Refunds a confirmed payment that is being cancelled, once for each operation. The operation
-- differs from that of the debit, whose record may be purged by then, so the caller names the
-- amount. While the record of the debit cannot be purged yet, it must exist: a wallet that lost
-- the debit in a rollback or restore still has the money.
--
-- KEYS: epoch seq outbox wallets wallet_ops wallet_ops_due tallies
-- ARGV: epoch, largest balance, user, operation, entry, amount, operation of the debit, when the
--   payment began
-- Reply: {code, balance}: REFUNDED, now or before; NO_ROOM, the balance would be above the
--   largest, so the refund waits; NOT_DEBITED, the debit is not known here
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
add_totals(user, -amount, -1)
note_op(op, 'g')
publish()
return { REFUNDED, text(balance) }
