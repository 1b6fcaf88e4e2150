-- Seats of a schedule: `seats` maps a number to the sixteen bytes of its reservation, then the
-- time at which the hold lapses, or "s" once it is sold. After that time the seat is available,
-- unless its reservation is being paid.
-- Codes: 1 HELD_SEAT 2 SOLD_SEAT
-- Gives: seat_state(value) → nil (available), HELD_SEAT or SOLD_SEAT.
local function seat_state(value)
  if not value then
    return nil
  end
  local rest = string.sub(value, 17)
  if rest == 's' then
    return SOLD_SEAT
  end
  if tonumber(rest) > now then
    return HELD_SEAT
  end
  local packed = redis.call('HGET', reservations, string.sub(value, 1, 16))
  return packed and cmsgpack.unpack(packed).status == 'paying' and HELD_SEAT or nil
end
