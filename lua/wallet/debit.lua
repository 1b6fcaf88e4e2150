#!lua
-- Takes a payment's amount out of wallets, once per payment and attempt. A tombstone refuses a debit that comes after its refund.
--
-- KEYS: epoch seq outbox wallets wallet_ops wallet_ops_due tallies
-- ARGV: epoch, then for each request: user, op (payment and attempt), entry, amount
-- Reply: {{state, balance}…}: 1 debited, now or before, with the balance right after it; 2 the balance does not suffice; 3 a tombstone stands
-- Codes: 1 DEBITED 2 INSUFFICIENT 3 TOMBSTONE
--
-- uses: constants guard outbox wallet wallet_operations paid_totals
redis.call('HLEN', tallies)
local function debit(user, op, entry, amount)
  local known, _, after = op_of(op)
  if known then
    return { known == 'd' and DEBITED or TOMBSTONE, text(after) }
  end
  local balance = balance_of(user)
  if balance < amount then
    return { INSUFFICIENT, text(balance) }
  end
  balance = balance - amount
  if amount > 0 then
    move(user, entry, 'payment', amount, balance, attempt_of(op))
  end
  tally(user, amount, 1)
  note_op(op, 'd' .. text(amount) .. ':' .. text(balance))
  return { DEBITED, text(balance) }
end
local replies = {}
for i = 2, #ARGV, 4 do
  replies[#replies + 1] = debit(ARGV[i], ARGV[i + 1], ARGV[i + 2], tonumber(ARGV[i + 3]))
end
publish()
return replies
