#!lua
-- Deletes reservations that have ended, once MySQL has them and their retention is over. Sold
-- seats stay sold.
--
-- KEYS: epoch reservations
-- ARGV: epoch, cursor, checkpoint, milliseconds of retention
-- Reply: {now, next cursor, how many were deleted}
--
-- uses: constants guard prune
local ENDED = { confirmed = true, released = true, expired = true, cancelled = true }
return prune(reservations, function(r)
  return ENDED[r.status]
end)
