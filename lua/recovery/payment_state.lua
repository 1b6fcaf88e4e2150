#!lua flags=no-writes
-- Returns the state of a payment.
--
-- KEYS: epoch payments
-- ARGV: epoch, payment
-- Reply: {attempt, state}: 0 and an empty string for a payment that Redis does not have
--
-- uses: constants guard payment
local p = load_payment(ARGV[2])
return p and { p.attempt, p.state } or { 0, '' }
