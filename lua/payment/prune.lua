#!lua
-- Drops payments that have ended, once MySQL has them and their replay time is over.
--
-- KEYS: epoch payments
-- ARGV: epoch, cursor, checkpoint, milliseconds
-- Reply: {now, next cursor, how many were dropped}
--
-- uses: constants guard prune
local ENDED = { confirmed = true, declined = true, voided = true, refunded = true }
return retire(payments, function(p)
  return ENDED[p.state] and not p.unsettled
end)
