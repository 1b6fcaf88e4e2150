#!lua flags=allow-oom
-- Gives money back to a wallet for a payment that was confirmed and is being cancelled, once per op. Its op is another than the debit's, whose record
-- may be forgotten by then, so the amount comes from the caller. As long as it can't be forgotten it must stand: a wallet that was rolled back or laid back without
-- the debit still has the money.
--
-- KEYS: generation seq outbox wallets wallet_ops wallet_ops_due tallies
-- ARGV: generation, largest balance, user, op, entry, amount, op of the debit, when the payment began
-- Reply: {state, balance}: 1 given back, now or before; 2 the balance would be above the largest: it waits until there is room; 3 it was not debited here
--
-- uses: guard outbox wallet wallet_ops tally
redis.call('HLEN', tallies)
local GIVEN, NO_ROOM, NOT_DEBITED = 1, 2, 3
local user, op, entry, amount = ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6])
local balance = balance_of(user)
if op_of(op) then
  return { GIVEN, text(balance) }
end
if amount > 0 and op_of(ARGV[7]) ~= 'd' and now < tonumber(ARGV[8]) + KEEP_OPS_MS then
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
return { GIVEN, text(balance) }
