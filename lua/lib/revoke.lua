-- What a refund takes back besides the paid totals: claims whose conditions held before it and do
-- not hold after it. Their points are taken out of the balance, at most what is there. They stay
-- in `claims`, so they cannot be made again. Uses outbox, wallet, paid_totals, reward_facts,
-- revocable.
-- Gives: refund_totals(user, amount, payments, balance) → the balance after it: subtracts refunded
--   money and payments from the totals, and revokes claims.
redis.call('HLEN', facts)
-- Each revocation has two events, and an outbox entry has 256 positions for ledger entries.
local MAX_REVOCATIONS = 100
local function refund_totals(user, amount, payments, balance)
  local before = facts_of(user)
  add_totals(user, -amount, -payments)
  local after, kept, revoked = facts_of(user), {}, {}
  for _, claim in ipairs(revocable_of(user)) do
    local conditions = cjson.decode(claim.terms)
    local ends = #unmet_by(before, conditions) == 0 and #unmet_by(after, conditions) > 0
    local list = ends and #revoked < MAX_REVOCATIONS and revoked or kept
    list[#list + 1] = claim
  end
  if #revoked == 0 then
    return balance
  end
  save_revocable(user, kept)
  for _, claim in ipairs(revoked) do
    local points = math.min(claim.points, balance)
    if points > 0 then
      balance = balance - points
      -- A claim is revoked once, so its id is free for the ledger entry.
      move(user, claim.claim, 'reward_reversal', points, balance, { claim = claim.claim })
    end
  end
  for _, claim in ipairs(revoked) do
    emit('claim', { id = claim.claim, reward = claim.reward, user = user, status = 'revoked',
      at = now })
  end
  return balance
end
