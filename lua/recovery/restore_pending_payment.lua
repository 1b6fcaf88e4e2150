#!lua
-- Restores an external payment that waits for its provider, with its reservation and seats. It is
-- due at its time, or at once if that is over.
--
-- KEYS: epoch busy reservations payments q:due q:owners s:seats
-- ARGV: epoch, payment record, reservation record
-- Reply: 1
--
-- uses: constants guard reservation payment
local p, r = cmsgpack.unpack(ARGV[2]), cmsgpack.unpack(ARGV[3])
redis.call('HSET', payments, p.id, ARGV[2])
redis.call('HSET', reservations, r.id, ARGV[3])
for _, number in ipairs(r.seats) do
  redis.call('HSET', seats, number, r.id .. text(r.hold_ends))
end
add_open(r.user, r.id)
redis.call('ZADD', due, p.external.due_at, p.id)
redis.call('HSETNX', busy, p.queue, '')
return 1
