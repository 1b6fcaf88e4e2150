#!lua
-- Drops reservations that have ended, once MySQL has them and their replay time is over. Seats that are sold stay sold.
--
-- KEYS: epoch reservations
-- ARGV: epoch, cursor, checkpoint, milliseconds
-- Reply: {now, next cursor, how many were dropped}
--
-- uses: constants guard prune
local ENDED = { confirmed = true, released = true, expired = true, cancelled = true }
return retire(reservations, function(r)
  return ENDED[r.status]
end)
