#!lua flags=allow-oom
-- The commit point of a payment by wallet: pending → confirmed. The seats are sold, and the active
-- slot under which they were held is used up. An attempt that is being voided or is not the current
-- one confirms nothing.
--
-- KEYS: epoch seq outbox reservations payments q:due q:owners q:bought q:active q:admitted
--   q:holds q:sales q:settings q:turnover s:seats
-- ARGV: epoch, then for each request: payment, attempt, balance after the debit, discount
-- Reply: {{code, payment record, reservation record}…}: CONFIRMED, now or before; REFUSED, not
--   this attempt, see the record
-- Codes: 1 CONFIRMED 2 REFUSED 3 NOT_FOUND
--
-- uses: constants guard turnover outbox reservation payment sale
check_sale()

local replies = {}
for i = 2, #ARGV, 4 do
  local p = load_payment(ARGV[i])
  local r = p and load(p.reservation)
  local reply = { NOT_FOUND, '', '' }
  if r then
    local same = p.attempt == tonumber(ARGV[i + 1])
    if same and p.state == 'pending' and r.status == 'paying' then
      p.balance_after, p.discount = tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3])
      reply = { CONFIRMED, sell(p, r) }
    else
      reply = { same and p.state == 'confirmed' and CONFIRMED or REFUSED, cmsgpack.pack(p),
        cmsgpack.pack(r) }
    end
  end
  replies[#replies + 1] = reply
end
write_turnover()
publish()
return replies
