#!lua flags=no-writes
-- Tells where a payment stands.
--
-- KEYS: generation payments
-- ARGV: generation, payment
-- Reply: {attempt, state}: 0 and an empty text where there is none
--
-- uses: guard payment
local p = load_payment(ARGV[2])
return p and { p.attempt, p.state } or { 0, '' }
