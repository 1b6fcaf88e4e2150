-- Payments of a partition, each a MessagePack map under its sixteen-byte id: {id, reservation,
-- user, queue, state, attempt, amount, discount, reason, balance_after, created_at, at, n}, where
-- `n` is the outbox entry of its last end; {key, fingerprint} of the request that began it, which a
-- restore needs; `refunded`, the sum of what cancelled seats gave back; while seats are being
-- cancelled {cancelling}: {number, seats, last, refund, total, key, fingerprint}; and with a coupon
-- {coupon, issue, unsettled}: `unsettled` from the confirmation until the coupon is marked as used.
-- An external payment has {external}: {wallet_amount, due_amount, due_at, provider, reference,
-- refunds, refund_due_since}, where `due_at` is set while it waits for the provider and later, and
-- `refunds` is a list of {reference, amount, at} that the provider has paid back.
-- States: pending → confirmed → refunding → confirmed | refunded, or pending → voiding → declined |
-- voided, after which a further attempt may begin. `due` has the time by which the sweep looks at
-- it.
-- Gives: load_payment(id), new_attempt(id, r, p, key, fingerprint) → a pending payment of the
--   reservation r, where p is the payment before this attempt or nil, pack_payment(p) → record,
--   save_payment(p) → record,
--   payment_event(p) (before it is saved), refund_due(p) → what the provider has to pay back.
local function load_payment(id)
  local packed = redis.call('HGET', payments, id)
  return packed and cmsgpack.unpack(packed) or nil
end
local function new_attempt(id, r, p, key, fingerprint)
  return {
    id = id, reservation = r.id, user = r.user, queue = r.queue, state = 'pending',
    attempt = p and p.attempt + 1 or 1, amount = r.amount, discount = 0,
    created_at = p and p.created_at or now, key = key, fingerprint = fingerprint,
  }
end
local function pack_payment(p)
  p.at = now
  return cmsgpack.pack(p)
end
local function save_payment(p)
  local packed = pack_payment(p)
  redis.call('HSET', payments, p.id, packed)
  return packed
end
local function refund_due(p)
  if not p.external then
    return 0
  end
  -- The wallet part is given back first.
  local amount = math.max(0, (p.refunded or 0) - p.external.wallet_amount)
  for _, refund in ipairs(p.external.refunds or {}) do
    amount = amount - refund.amount
  end
  return amount
end
local function payment_event(p)
  p.n = entry_n
  emit('payment', {
    id = p.id, reservation = p.reservation, user = p.user, queue = p.queue, amount = p.amount,
      discount = p.discount, status = p.state == 'refunding' and 'confirmed' or p.state,
    reason = p.reason, attempt = p.attempt, balance_after = p.balance_after,
      created_at = p.created_at, at = now,
    coupon = p.coupon, issue = p.issue, key = p.key, fingerprint = p.fingerprint,
    refunded = p.refunded, external = p.external,
  })
end
