#!lua flags=allow-oom
-- Begins to void a pending attempt: pending → voiding. From here on it cannot be confirmed, so
-- its debit may be refunded.
--
-- KEYS: epoch payments
-- ARGV: epoch, then for each request: payment, attempt, reason (see finish_void.lua), discount
-- Reply: {{code, payment record}…}: VOIDING, now or before; PAST, not this attempt or past
--   voiding, see the record
-- Codes: 1 VOIDING 2 PAST 3 NOT_FOUND
--
-- uses: constants guard payment
local replies = {}
for i = 2, #ARGV, 4 do
  local p = load_payment(ARGV[i])
  local reply = { NOT_FOUND, '' }
  if p then
    local same = p.attempt == tonumber(ARGV[i + 1])
    if same and p.state == 'pending' then
      p.state, p.reason, p.discount = 'voiding', ARGV[i + 2], tonumber(ARGV[i + 3])
      save_payment(p)
    end
    reply = { same and p.state == 'voiding' and VOIDING or PAST, cmsgpack.pack(p) }
  end
  replies[#replies + 1] = reply
end
return replies
