#!lua flags=allow-oom
-- Goes on with a cancelling that was lost after its money was given back: confirmed → refunding, confirmed → cancelling, and due at once, so that the sweep ends it.
--
-- KEYS: generation reservations payments q:due
-- ARGV: generation, payment
-- Reply: 1 it goes on, 2 it is not confirmed here
--
-- uses: guard reservation payment
local GOES_ON, OTHER = 1, 2
redis.call('ZCARD', due)
local p = load_payment(ARGV[2])
local r = p and load(p.reservation)
if not r or p.state ~= 'confirmed' or r.status ~= 'confirmed' then
  return OTHER
end
p.state, r.status, r.key = 'refunding', 'cancelling', p.cancel_key
save(r)
save_payment(p)
redis.call('ZADD', due, now, p.id)
return GOES_ON
