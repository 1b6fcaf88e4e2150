#!lua
-- Records which holds have lapsed. A hold lapses at its deadline without this call; this only
-- records it in the outbox.
--
-- KEYS: epoch seq outbox reservations q:holds q:owners q:sales
-- ARGV: epoch, how many at most (≤ 256)
-- Reply: {how many were recorded, seats for sale, seats sold, reservations that are open, {schedule,
--   how many seats, seat…}}: the list has the seats of the recorded holds
--
-- uses: constants guard outbox reservation
redis.call('HLEN', reservations)
redis.call('HLEN', owners)
local totals = redis.call('HMGET', sales, 'capacity', 'sold')
local ids = redis.call('ZRANGEBYSCORE', holds, '-inf', text(now), 'LIMIT', 0, tonumber(ARGV[2]))
local lapsed = {}
for _, id in ipairs(ids) do
  local r = load(id)
  if r and r.status == 'held' then
    end_reservation(r, 'expired')
    lapsed[#lapsed + 1], lapsed[#lapsed + 2] = r.schedule, #r.seats
    for _, number in ipairs(r.seats) do
      lapsed[#lapsed + 1] = number
    end
  else
    redis.call('ZREM', holds, id)
  end
end
publish()
return { #ids, totals[1] or '0', totals[2] or '0', redis.call('ZCARD', holds), lapsed }
