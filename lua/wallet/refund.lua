#!lua flags=allow-oom
-- Refunds what the attempt of a payment debited, once, and always leaves a tombstone, so that a
-- late debit cannot succeed. It always fits into the wallet: see charge.lua.
--
-- KEYS: epoch seq outbox wallets wallet_ops wallet_ops_due tallies facts revocable
-- ARGV: epoch, user, operation (payment and attempt), entry, reservation (may be empty)
-- Reply: the amount refunded by this call as decimal text
--
-- uses: constants guard outbox wallet wallet_operations paid_totals reward_facts revocable revoke
redis.call('HLEN', tallies)
local user, op = ARGV[2], ARGV[3]
local known, debited = op_of(op)
-- What was refunded for cancelled seats is not refunded again.
local refunded, ended = refunded_of(string.sub(op, 1, 16) .. 'c')
if known == 't' or ended then
  return '0'
end
local amount, balance = math.max(0, (debited or 0) - refunded), balance_of(user)
if amount > 0 then
  balance = balance + amount
  move(user, ARGV[4], 'refund', amount, balance, attempt_of(op, ARGV[5]))
end
if known == 'd' then
  refund_totals(user, amount, 1, balance)
end
note_op(op, 't')
publish()
return text(amount)
