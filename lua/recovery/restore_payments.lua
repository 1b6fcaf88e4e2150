#!lua
-- Restores payments that have ended. A payment whose coupon is not marked as used yet is due at
-- once, so that the sweep marks it.
--
-- KEYS: epoch payments
-- ARGV: epoch, checkpoint, then for each: payment, reservation, user, queue, state, attempt,
--   amount, discount, reason, balance after it, created_at, at, coupon, issue, key, fingerprint,
--   refunded, external (JSON; all but the first eight, the times and refunded may be empty),
--   whether its coupon is to be marked (1 or 0); the queue's `due` follows the keys of the header
-- Reply: 1
--
-- uses: constants guard payment
for i = 3, #ARGV, 19 do
  local function word(n)
    return ARGV[i + n] ~= '' and ARGV[i + n] or nil
  end
  local p = {
    id = ARGV[i], reservation = ARGV[i + 1], user = ARGV[i + 2], queue = ARGV[i + 3],
      state = ARGV[i + 4], attempt = tonumber(ARGV[i + 5]),
    amount = tonumber(ARGV[i + 6]), discount = tonumber(ARGV[i + 7]), reason = word(8),
      balance_after = tonumber(ARGV[i + 9]),
    created_at = tonumber(ARGV[i + 10]), at = tonumber(ARGV[i + 11]), coupon = word(12),
      issue = word(13), key = word(14), fingerprint = word(15),
    refunded = tonumber(ARGV[i + 16]), external = word(17) and cjson.decode(word(17)),
      unsettled = ARGV[i + 18] == '1' or nil,
      n = tonumber(ARGV[2]),
  }
  redis.call('HSET', payments, p.id, cmsgpack.pack(p))
  if p.unsettled then
    redis.call('ZADD', KEYS[3], now, p.id)
  end
end
return 1
