#!lua flags=allow-oom
-- Records that the provider paid money back: what is due becomes less by it, once for each
-- reference.
--
-- KEYS: epoch seq outbox payments
-- ARGV: epoch, payment, reference of the refund, amount
-- Reply: {code, payment record}: REPORTED, now or before; MISMATCH, more than is due, or the
--   reference was reported with another amount
-- Codes: 1 REPORTED 2 MISMATCH 3 NOT_FOUND
--
-- uses: constants guard outbox payment
local p = load_payment(ARGV[2])
if not p then
  return { NOT_FOUND, '' }
end
local reference, amount, x = ARGV[3], tonumber(ARGV[4]), p.external or {}
for _, refund in ipairs(x.refunds or {}) do
  if refund.reference == reference then
    return { refund.amount == amount and REPORTED or MISMATCH, cmsgpack.pack(p) }
  end
end
if amount > refund_due(p) then
  return { MISMATCH, cmsgpack.pack(p) }
end
x.refunds = x.refunds or {}
x.refunds[#x.refunds + 1] = { reference = reference, amount = amount, at = now }
x.refund_due_since = refund_due(p) > 0 and x.refund_due_since or nil
payment_event(p)
local packed = save_payment(p)
publish()
return { REPORTED, packed }
