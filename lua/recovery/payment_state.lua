#!lua flags=no-writes
-- Tells where a payment stands.
--
-- KEYS: epoch payments
-- ARGV: epoch, payment
-- Reply: {attempt, state}: 0 and an empty text where there is none
--
-- uses: constants guard payment
local p = load_payment(ARGV[2])
return p and { p.attempt, p.state } or { 0, '' }
