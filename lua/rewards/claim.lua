#!lua
-- Claims a reward for users: once each, inside its window, if all conditions hold for the user's
-- facts. Points are in the wallet when this returns. Every attempt is recorded in the history,
-- also a refused one.
--
-- KEYS: epoch seq outbox rewards claims facts tallies wallets revocable
-- ARGV: epoch, reward, its version, active (1 or 0), starts at, ends at, points, largest balance,
--   the conditions as JSON text (empty: a refund does not revoke the claim), their number, then
--   for each: fact, operator, value; then for each request: user, claim, entry
-- Reply: {now, {code, index…}…}: UNMET with the indexes, from 1, of the conditions that do not
--   hold; or NOT_PUBLISHED for another version of the reward
-- Codes: 1 CLAIMED 2 ALREADY 3 INACTIVE 4 NOT_STARTED 5 ENDED 6 UNMET 7 ABOVE_LIMIT
--
-- uses: constants guard outbox wallet paid_totals reward_facts revocable
local REASONS = { false, 'already_claimed', 'inactive', 'not_started', 'ended',
  'condition_not_met', 'balance_limit_exceeded' }
local reward, active, starts_at, ends_at = ARGV[2], ARGV[4] == '1', tonumber(ARGV[5]),
  tonumber(ARGV[6])
local points, largest = tonumber(ARGV[7]), tonumber(ARGV[8])
if redis.call('HGET', rewards, reward) ~= ARGV[3] then
  return NOT_PUBLISHED
end
redis.call('HLEN', claims)
redis.call('HLEN', facts)
redis.call('HLEN', tallies)
redis.call('HLEN', wallets)

local terms, conditions, first = ARGV[9], {}, 11
for _ = 1, tonumber(ARGV[10]) do
  conditions[#conditions + 1] = { fact = ARGV[first], op = ARGV[first + 1],
    value = tonumber(ARGV[first + 2]) }
  first = first + 3
end

local function claim(user, id, entry)
  if redis.call('HEXISTS', claims, user .. reward) == 1 then
    return { ALREADY }
  end
  if not active then
    return { INACTIVE }
  end
  if now < starts_at then
    return { NOT_STARTED }
  end
  if now >= ends_at then
    return { ENDED }
  end
  local unmet = unmet_by(facts_of(user), conditions)
  if #unmet > 0 then
    return { UNMET, unpack(unmet) }
  end
  local balance = balance_of(user) + points
  if balance > largest or not leaves_room(redis.call('HGET', tallies, user), balance) then
    return { ABOVE_LIMIT }
  end
  redis.call('HSET', claims, user .. reward, id .. text(now))
  if terms ~= '' then
    local list = revocable_of(user)
    list[#list + 1] = { claim = id, reward = reward, points = points, terms = terms }
    save_revocable(user, list)
  end
  if points > 0 then
    move(user, entry, 'reward', points, balance, { claim = id })
  end
  return { CLAIMED }
end

-- Entries of the ledger come first: they alone need a place among the first 256 events.
local replies, attempts = {}, {}
for i = first, #ARGV, 3 do
  local reply = claim(ARGV[i], ARGV[i + 1], ARGV[i + 2])
  local reason = REASONS[reply[1]] or nil
  attempts[#attempts + 1] = { id = ARGV[i + 1], reward = reward, user = ARGV[i], status = reason
    and 'failed' or 'success', reason = reason, at = now,
    points = not reason and terms ~= '' and points or nil,
    conditions = not reason and terms ~= '' and terms or nil }
  replies[#replies + 1] = reply
end
for _, attempt in ipairs(attempts) do
  emit('claim', attempt)
end
publish()
return { text(now), unpack(replies) }
