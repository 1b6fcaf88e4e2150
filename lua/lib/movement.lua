-- Money that users move themselves, once for each idempotency key. Uses outbox, idempotency,
-- wallet and bulk. Six arguments a request: user, key, fingerprint, entry, amount, reference.
-- Codes: 1 MOVED 2 REPLAYED 3 REUSED 4 REFUSED
-- Gives: users_from(first argument); move_all(first argument, kind, balance_after(balance, amount,
--   number of the request) → the balance after it, or nil if it is not allowed) → {{code, entry, amount, balance, at}…}: REPLAYED, moved before under this
--   key; REUSED, the key belongs to another request; REFUSED, not allowed. REUSED and REFUSED
--   come alone.
local MOVEMENT_ARGS = 6
local function users_from(first)
  local users = {}
  for i = first, #ARGV, MOVEMENT_ARGS do
    users[#users + 1] = ARGV[i]
  end
  return users
end
local function move_all(first, kind, balance_after)
  local users, bound = users_from(first), {}
  for n, user in ipairs(users) do
    bound[n] = user .. ARGV[first + (n - 1) * MOVEMENT_ARGS + 1]
  end
  local known = redis.call('HMGET', idempotency, unpack(bound))
  local stored = redis.call('HMGET', wallets, unpack(users))
  -- What earlier requests of this call have changed: balances by user, records by user and key.
  local balances, made, replies = {}, {}, {}
  local moved, kept, kept_due, kept_until = {}, {}, {}, text(KEPT_UNTIL)
  for n, user in ipairs(users) do
    local _, key, fingerprint, entry, amount, reference = unpack(ARGV,
      first + (n - 1) * MOVEMENT_ARGS, first + n * MOVEMENT_ARGS - 1)
    local record = made[bound[n]] or kept_record(known[n])
    if record and record.fingerprint ~= fingerprint then
      replies[n] = { REUSED }
    elseif record then
      replies[n] = { REPLAYED, record.thing, text(record.amount), text(record.balance),
        text(record.at) }
    else
      amount = tonumber(amount)
      local balance = balance_after(balances[user] or tonumber(stored[n] or '0'), amount, n)
      if balance then
        entry_event(user, entry, kind, amount, balance, { key = key, fingerprint = fingerprint,
          reference = reference ~= '' and reference or nil })
        record = { fingerprint = fingerprint, thing = entry, amount = amount, balance = balance,
          at = now }
        balances[user], made[bound[n]] = balance, record
        put(moved, user, text(balance))
        put(kept, bound[n], pack_key(record))
        put(kept_due, kept_until, bound[n])
        replies[n] = { MOVED, entry, text(amount), text(balance), text(now) }
      else
        replies[n] = { REFUSED }
      end
    end
  end
  write_all('HSET', wallets, moved)
  write_all('HSET', idempotency, kept)
  write_all('ZADD', idempotency_due, kept_due)
  return replies
end
