-- The debit of a payment's attempt. Uses outbox, wallet, wallet_operations and paid_totals.
-- Gives: take(user, op, entry, amount, balance before it, reservation) → balance after it.
redis.call('HLEN', tallies)
local function take(user, op, entry, amount, balance, reservation)
  balance = balance - amount
  if amount > 0 then
    move(user, entry, 'payment', amount, balance, attempt_of(op, reservation))
  end
  add_totals(user, amount, 1)
  note_op(op, debit_note(amount, balance))
  return balance
end
