#!lua flags=allow-oom
-- Ends the follow-up of confirmed payments whose coupons are marked as used: the sweep does not
-- look at them any more.
--
-- KEYS: epoch payments q:due
-- ARGV: epoch, then for each request: payment
-- Reply: 1
--
-- uses: constants guard payment
redis.call('ZCARD', due)
for i = 2, #ARGV do
  local p = load_payment(ARGV[i])
  if p and p.state == 'confirmed' then
    p.unsettled = nil
    redis.call('HSET', payments, p.id, cmsgpack.pack(p))
    redis.call('ZREM', due, p.id)
  end
end
return 1
