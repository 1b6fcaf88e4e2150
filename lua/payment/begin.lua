#!lua
-- Begins to pay for a held reservation: the reservation goes from held to paying, the payment is
-- pending under a new attempt, and the time at which it is due is recorded. Two calls with one
-- payment id join one attempt.
--
-- KEYS: epoch reservations payments q:holds q:due
-- ARGV: epoch, queue, milliseconds until the payment is due, then for each request: payment,
--   reservation, user, issue and coupon to be used (both empty: none; an issue without a coupon
--   is one that no coupon has), idempotency key, its fingerprint, the part that the wallet pays of
--   an external payment (empty: the wallet pays all)
-- Reply: {now, {code, payment record, reservation record}…}: JOINED, already pending; SETTLED,
--   ended or being voided, see the record; LAPSED, the hold has lapsed; NOT_FOUND, also for a
--   reservation of another user; NOTHING_DUE, the wallet part leaves nothing for the provider
-- Codes: 1 BEGUN 2 JOINED 3 SETTLED 4 LAPSED 5 NOT_PAYABLE 6 NOT_FOUND 7 WRONG_QUEUE 8 NOTHING_DUE
--
-- uses: constants guard reservation payment
redis.call('ZCARD', holds)
redis.call('ZCARD', due)
local due_at = text(now + tonumber(ARGV[3]))

local function begin(id, reservation, user, issue, coupon, key, fingerprint, wallet_amount)
  local r, p = load(reservation), load_payment(id)
  if not r or r.user ~= user or p and p.user ~= user then
    return { NOT_FOUND, '', '' }
  end
  if r.queue ~= ARGV[2] then
    return { WRONG_QUEUE, '', '' }
  end
  if p and p.state == 'pending' then
    return { JOINED, cmsgpack.pack(p), cmsgpack.pack(r) }
  end
  if p and (p.state == 'confirmed' or p.state == 'refunding' or p.state == 'refunded'
    or p.state == 'voiding') then
    return { SETTLED, cmsgpack.pack(p), cmsgpack.pack(r) }
  end
  if r.status == 'expired' or r.status == 'held' and r.held_until <= now then
    return { LAPSED, '', '' }
  end
  if r.status ~= 'held' then
    return { NOT_PAYABLE, '', '' }
  end
  if wallet_amount ~= '' and tonumber(wallet_amount) >= r.amount then
    return { NOTHING_DUE, '', '' }
  end
  p = new_attempt(id, r, p, key, fingerprint)
  p.issue, p.coupon = issue ~= '' and issue or nil, coupon ~= '' and coupon or nil
  p.external = wallet_amount ~= '' and { wallet_amount = tonumber(wallet_amount) } or nil
  r.status, r.payment = 'paying', id
  redis.call('ZREM', holds, reservation)
  redis.call('ZADD', due, due_at, id)
  return { BEGUN, save_payment(p), save(r) }
end

local replies = {}
for i = 4, #ARGV, 8 do
  replies[#replies + 1] = begin(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4],
    ARGV[i + 5], ARGV[i + 6], ARGV[i + 7])
end
return { text(now), unpack(replies) }
