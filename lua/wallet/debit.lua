#!lua
-- Takes the amount of a payment out of wallets, once for each payment and attempt. A tombstone
-- refuses a debit that arrives after its refund.
--
-- KEYS: epoch seq outbox wallets wallet_ops wallet_ops_due tallies
-- ARGV: epoch, then for each request: user, operation (payment and attempt), entry, amount,
--   reservation
-- Reply: {{code, balance}…}: DEBITED, now or before, with the balance right after it
-- Codes: 1 DEBITED 2 INSUFFICIENT 3 TOMBSTONE
--
-- uses: constants guard outbox wallet wallet_operations paid_totals debit
local function debit_once(user, op, entry, amount, reservation)
  local known, _, after = op_of(op)
  if known then
    return { known == 'd' and DEBITED or TOMBSTONE, text(after) }
  end
  local balance = balance_of(user)
  if balance < amount then
    return { INSUFFICIENT, text(balance) }
  end
  return { DEBITED, text(take(user, op, entry, amount, balance, reservation)) }
end
local replies = {}
for i = 2, #ARGV, 5 do
  replies[#replies + 1] = debit_once(ARGV[i], ARGV[i + 1], ARGV[i + 2], tonumber(ARGV[i + 3]),
    ARGV[i + 4])
end
publish()
return replies
