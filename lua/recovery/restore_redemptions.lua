#!lua
-- Restores which issues of a coupon are used or reserved, and by which payment.
--
-- KEYS: epoch c:uses
-- ARGV: epoch, then for each: issue, payment, attempt, discount, used_at (empty: reserved)
-- Reply: 1
--
-- uses: constants guard
for i = 2, #ARGV, 5 do
  local use = { payment = ARGV[i + 1], attempt = ARGV[i + 2], discount = tonumber(ARGV[i + 3]),
    used_at = tonumber(ARGV[i + 4]) }
  redis.call('HSET', uses, ARGV[i], cmsgpack.pack(use))
end
return 1
