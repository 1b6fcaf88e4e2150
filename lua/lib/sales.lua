-- What a queue sells: `concerts` maps a concert to its published "version seats"; `sales` has the
-- capacity and the sold seats of all its concerts.
-- Gives: sold_out() → 1 once every seat is sold, else 0.
local function sold_out()
  local totals = redis.call('HMGET', sales, 'capacity', 'sold')
  local capacity = tonumber(totals[1] or '0')
  return capacity > 0 and tonumber(totals[2] or '0') >= capacity and 1 or 0
end
