-- Payments of a partition, each a MessagePack map under its sixteen-byte id: {id, reservation,
-- user, queue, state, attempt, amount, discount, reason, balance_after, created_at, at, n}, where
-- `n` is the outbox entry of its last end; {key, fingerprint} of the request that began it, which a
-- restore needs; `refunded`, the sum of what cancelled seats gave back; while seats are being
-- cancelled {cancelling}: {number, seats, last, refund, total, key, fingerprint}; and with a coupon
-- {coupon, issue, unsettled}: `unsettled` from the confirmation until the coupon is marked as used.
-- States: pending → confirmed → refunding → confirmed | refunded, or pending → voiding → declined |
-- voided, after which a further attempt may begin. `due` has the time by which the sweep looks at
-- it.
-- Gives: load_payment(id), save_payment(p) → record, payment_event(p) (before it is saved).
local function load_payment(id)
  local packed = redis.call('HGET', payments, id)
  return packed and cmsgpack.unpack(packed) or nil
end
local function save_payment(p)
  p.at = now
  local packed = cmsgpack.pack(p)
  redis.call('HSET', payments, p.id, packed)
  return packed
end
local function payment_event(p)
  p.n = entry_n
  emit('payment', {
    id = p.id, reservation = p.reservation, user = p.user, queue = p.queue, amount = p.amount,
      discount = p.discount, status = p.state,
    reason = p.reason, attempt = p.attempt, balance_after = p.balance_after,
      created_at = p.created_at, at = now,
    coupon = p.coupon, issue = p.issue, key = p.key, fingerprint = p.fingerprint,
    refunded = p.refunded,
  })
end
