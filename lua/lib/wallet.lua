-- Wallets of a partition: `wallets` maps a user to the balance as decimal text; every change
-- appends an entry to the outbox. `of` says what the entry belongs to, which a restore needs:
-- {key, fingerprint, reference} of the request, {payment, attempt, reservation, cancelled_seats,
-- ends_payment} (attempt nil: the refund of a cancellation), or {claim} of a reward.
-- Gives: balance_of(user), entry_event(user, entry, kind, amount, balance, of), move(the same).
local function balance_of(user)
  return tonumber(redis.call('HGET', wallets, user) or '0')
end
local function entry_event(user, entry, kind, amount, balance, of)
  emit('entry', {
    id = entry, user = user, kind = kind, amount = amount, balance = balance, at = now,
    key = of.key, fingerprint = of.fingerprint, payment = of.payment, attempt = of.attempt,
    reservation = of.reservation, claim = of.claim, cancelled_seats = of.cancelled_seats,
    reference = of.reference, ends_payment = of.ends_payment,
  })
end
local function move(user, entry, kind, amount, balance, of)
  redis.call('HSET', wallets, user, text(balance))
  entry_event(user, entry, kind, amount, balance, of)
end
