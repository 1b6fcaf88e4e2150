#!lua flags=allow-oom
-- Refunds the cancellations of a confirmed payment up to a total, each once. The operation differs
-- from that of the debit, whose record may be purged by then, so the caller names the amount.
-- While the record of the debit cannot be purged yet, it must exist: a wallet that lost the debit
-- in a rollback or restore still has the money. The refund always fits into the wallet: see
-- charge.lua.
--
-- KEYS: epoch seq outbox wallets wallet_ops wallet_ops_due tallies facts revocable
-- ARGV: epoch, user, operation, entry, what is refunded in total after this cancellation, operation
--   of the debit, when the payment began, reservation, whether its last seats are cancelled (1 or
--   0), seats of this cancellation (numbers, separated by commas)
-- Reply: {code, balance}: REFUNDED, now or before; NOT_DEBITED, the debit is not known here
-- Codes: 1 REFUNDED 2 NOT_DEBITED
--
-- uses: constants guard outbox wallet wallet_operations paid_totals reward_facts revocable revoke
redis.call('HLEN', tallies)
local user, op, entry, total, last = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5]), ARGV[9] == '1'
local balance = balance_of(user)
local refunded, ended = refunded_of(op)
if ended or refunded >= total and not last then
  return { REFUNDED, text(balance) }
end
if total > 0 and op_of(ARGV[6]) ~= 'd' and now < tonumber(ARGV[7]) + OPERATION_KEPT_MS then
  return { NOT_DEBITED, text(balance) }
end
local amount = total - refunded
-- The end of a payment has an entry even if its last seats cost nothing.
if amount > 0 or total > 0 then
  balance = balance + amount
  local of = attempt_of(op, ARGV[8])
  of.cancelled_seats, of.ends_payment = ARGV[10], last or nil
  move(user, entry, 'refund', amount, balance, of)
end
balance = refund_totals(user, amount, last and 1 or 0, balance)
note_op(op, (last and 'l' or 'g') .. text(total))
publish()
return { REFUNDED, text(balance) }
