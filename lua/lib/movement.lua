-- Money that users move themselves, once for each idempotency key. Uses outbox, idempotency,
-- wallet. Five arguments a request: user, key, fingerprint, entry, amount.
-- Codes: 1 MOVED 2 REPLAYED 3 REUSED 4 REFUSED
-- Gives: move_all(first, kind, balance_after(balance, amount) → the balance after it, or nil if
--   it is not allowed) → {{code, entry, amount, balance, at}…}: REPLAYED, moved before under this
--   key; REUSED, the key belongs to another request; REFUSED, not allowed. REUSED and REFUSED
--   come alone.
local function move_once(user, key, fingerprint, entry, kind, amount, balance_after)
  local record, balance = recall(user, key), balance_of(user)
  if record then
    if record.fingerprint ~= fingerprint then
      return { REUSED }
    end
    return { REPLAYED, record.thing, text(record.amount), text(record.balance), text(record.at) }
  end
  balance = balance_after(balance, amount)
  if not balance then
    return { REFUSED }
  end
  move(user, entry, kind, amount, balance, { key = key, fingerprint = fingerprint })
  remember(user, key, { fingerprint = fingerprint, thing = entry, amount = amount,
    balance = balance, at = now })
  return { MOVED, entry, text(amount), text(balance), text(now) }
end
local function move_all(first, kind, balance_after)
  local replies = {}
  for i = first, #ARGV, 5 do
    replies[#replies + 1] = move_once(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], kind,
      tonumber(ARGV[i + 4]), balance_after)
  end
  return replies
end
