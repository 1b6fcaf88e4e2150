-- Money that users move themselves, once for each idempotency key. Uses outbox, idempotency,
-- wallet. Six arguments a request: user, key, fingerprint, entry, amount, reference.
-- Codes: 1 MOVED 2 REPLAYED 3 REUSED 4 REFUSED
-- Gives: move_all(first, kind, balance_after(user, balance, amount) → the balance after it, or nil
--   if it is not allowed) → {{code, entry, amount, balance, at}…}: REPLAYED, moved before under this
--   key; REUSED, the key belongs to another request; REFUSED, not allowed. REUSED and REFUSED
--   come alone.
local function move_once(kind, balance_after, user, key, fingerprint, entry, amount, reference)
  local record, balance = recall(user, key), balance_of(user)
  if record then
    if record.fingerprint ~= fingerprint then
      return { REUSED }
    end
    return { REPLAYED, record.thing, text(record.amount), text(record.balance), text(record.at) }
  end
  balance = balance_after(user, balance, amount)
  if not balance then
    return { REFUSED }
  end
  move(user, entry, kind, amount, balance, { key = key, fingerprint = fingerprint,
    reference = reference ~= '' and reference or nil })
  remember(user, key, { fingerprint = fingerprint, thing = entry, amount = amount,
    balance = balance, at = now })
  return { MOVED, entry, text(amount), text(balance), text(now) }
end
local function move_all(first, kind, balance_after)
  local replies = {}
  for i = first, #ARGV, 6 do
    replies[#replies + 1] = move_once(kind, balance_after, ARGV[i], ARGV[i + 1], ARGV[i + 2],
      ARGV[i + 3], tonumber(ARGV[i + 4]), ARGV[i + 5])
  end
  return replies
end
