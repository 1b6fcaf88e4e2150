#!lua flags=allow-oom
-- Refunds what the attempt of a payment debited, once, and always leaves a tombstone, so that a
-- late debit cannot succeed.
--
-- KEYS: epoch seq outbox wallets wallet_ops wallet_ops_due tallies
-- ARGV: epoch, largest balance, then for each request: user, operation (payment and attempt),
--   entry
-- Reply: {{amount refunded by this call, balance}…}; −1 when the balance would be above the
--   largest: the refund waits
--
-- uses: constants guard outbox wallet wallet_operations paid_totals
redis.call('HLEN', tallies)
local largest = tonumber(ARGV[2])
local function refund(user, op, entry)
  local known, amount = op_of(op)
  local balance = balance_of(user)
  -- The refund of a cancellation is not repeated here.
  if known == 't' or op_of(string.sub(op, 1, 16) .. 'c') then
    return { '0', text(balance) }
  end
  amount = amount or 0
  if balance + amount > largest then
    return { '-1', text(balance) }
  end
  if amount > 0 then
    balance = balance + amount
    move(user, entry, 'refund', amount, balance, attempt_of(op))
  end
  if known == 'd' then
    add_totals(user, -amount, -1)
  end
  note_op(op, 't')
  return { text(amount), text(balance) }
end
local replies = {}
for i = 3, #ARGV, 3 do
  replies[#replies + 1] = refund(ARGV[i], ARGV[i + 1], ARGV[i + 2])
end
publish()
return replies
