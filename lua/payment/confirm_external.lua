#!lua flags=allow-oom
-- The commit point of an external payment: pending → confirmed, once the provider has the money.
-- Like confirm.lua, and only while the payment waits for exactly this amount.
--
-- KEYS: epoch seq outbox reservations payments q:due q:owners q:bought q:active q:admitted
--   q:holds q:sales q:settings q:turnover s:seats
-- ARGV: epoch, payment, attempt, balance after the debit (empty: nothing was debited), provider,
--   reference, amount
-- Reply: {code, payment record, reservation record}: CONFIRMED, by this call; TOO_LATE, pending,
--   but past its time; REFUSED, see the record
-- Codes: 1 CONFIRMED 2 TOO_LATE 3 REFUSED 4 NOT_FOUND
--
-- uses: constants guard turnover outbox reservation payment sale
check_sale()

local p = load_payment(ARGV[2])
local r = p and load(p.reservation)
if not r then
  return { NOT_FOUND, '', '' }
end
local function answer(code)
  return { code, cmsgpack.pack(p), cmsgpack.pack(r) }
end
local x = p.external
if p.attempt ~= tonumber(ARGV[3]) or p.state ~= 'pending' or r.status ~= 'paying'
  or not x or not x.due_at or x.due_amount ~= tonumber(ARGV[7]) then
  return answer(REFUSED)
end
if now >= x.due_at then
  return answer(TOO_LATE)
end
p.balance_after, x.provider, x.reference = tonumber(ARGV[4]), ARGV[5], ARGV[6]
sell(p, r)
write_turnover()
publish()
return answer(CONFIRMED)
