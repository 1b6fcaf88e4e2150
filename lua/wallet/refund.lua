#!lua flags=allow-oom
-- Refunds what the attempt of a payment debited, once, and always leaves a tombstone, so that a
-- late debit cannot succeed.
--
-- KEYS: epoch seq outbox wallets wallet_ops wallet_ops_due tallies
-- ARGV: epoch, largest balance, then for each request: user, operation (payment and attempt),
--   entry, reservation (may be empty)
-- Reply: {{amount refunded by this call, balance}…}; −1 when the balance would be above the
--   largest: the refund waits
--
-- uses: constants guard outbox wallet wallet_operations paid_totals
redis.call('HLEN', tallies)
local largest = tonumber(ARGV[2])
local function refund(user, op, entry, reservation)
  local known, amount = op_of(op)
  local balance = balance_of(user)
  -- What was refunded for cancelled seats is not refunded again.
  local refunded, ended = refunded_of(string.sub(op, 1, 16) .. 'c')
  if known == 't' or ended then
    return { '0', text(balance) }
  end
  amount = math.max(0, (amount or 0) - refunded)
  if balance + amount > largest then
    return { '-1', text(balance) }
  end
  if amount > 0 then
    balance = balance + amount
    move(user, entry, 'refund', amount, balance, attempt_of(op, reservation))
  end
  if known == 'd' then
    add_totals(user, -amount, -1)
  end
  note_op(op, 't')
  return { text(amount), text(balance) }
end
local replies = {}
for i = 3, #ARGV, 4 do
  replies[#replies + 1] = refund(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3])
end
publish()
return replies
