-- Which outbox entry was the last about each coupon: `coupon_entries`, coupon → number. So a list
-- of a user's issues asks only the coupons of which MySQL lacks something. Uses outbox.
-- Gives: note_coupon(coupon), to be called before publish.
redis.call('HLEN', coupon_entries)
local function note_coupon(coupon)
  if #events > 0 then
    redis.call('HSET', coupon_entries, coupon, text(entry_n))
  end
end
