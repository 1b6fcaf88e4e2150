#!lua flags=no-writes
-- Reads payments with their reservations.
--
-- KEYS: epoch reservations payments
-- ARGV: epoch, then for each request: payment
-- Reply: {now, {payment record, reservation record}…}; empty strings for a payment that Redis
--   does not have
--
-- uses: constants guard payment
local replies = {}
for i = 2, #ARGV do
  local p = load_payment(ARGV[i])
  local packed = p and redis.call('HGET', reservations, p.reservation) or ''
  replies[#replies + 1] = { p and cmsgpack.pack(p) or '', packed }
end
return { text(now), unpack(replies) }
