#!lua flags=allow-oom
-- Resumes a cancellation that was lost after its money was refunded: payment confirmed →
-- refunding, reservation confirmed → cancelling, due at once, so that the sweep ends it.
--
-- KEYS: epoch busy reservations payments q:due
-- ARGV: epoch, payment
-- Reply: a code: NOT_CONFIRMED, it is not confirmed here
-- Codes: 1 RESUMED 2 NOT_CONFIRMED
--
-- uses: constants guard reservation payment
redis.call('ZCARD', due)
local p = load_payment(ARGV[2])
local r = p and load(p.reservation)
if not r or p.state ~= 'confirmed' or r.status ~= 'confirmed' then
  return NOT_CONFIRMED
end
p.state, r.status, r.key = 'refunding', 'cancelling', p.cancel_key
save(r)
save_payment(p)
redis.call('ZADD', due, now, p.id)
redis.call('HSETNX', busy, p.queue, '')
return RESUMED
