#!lua
-- Deletes payments that have ended, once MySQL has them and their retention is over. A payment
-- stays while its provider has to pay money back.
--
-- KEYS: epoch payments
-- ARGV: epoch, cursor, checkpoint, milliseconds of retention
-- Reply: {now, next cursor, how many were deleted}
--
-- uses: constants guard prune payment
local ENDED = { confirmed = true, declined = true, voided = true, refunded = true }
return prune(payments, function(p)
  return ENDED[p.state] and not p.unsettled and refund_due(p) == 0
end)
