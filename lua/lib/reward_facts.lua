-- Facts of users and conditions on them. Operators set integers only, and never the two facts that
-- Usher keeps. Uses paid_totals.
-- Gives: facts_of(user) → {fact: number}; unmet_by(known, conditions) → the indexes, from 1, of the
--   conditions {fact, op, value} that do not hold.
local COMPARE = {
  ['>='] = function(a, b) return a >= b end,
  ['<='] = function(a, b) return a <= b end,
  ['=='] = function(a, b) return a == b end,
  ['!='] = function(a, b) return a ~= b end,
}
local function facts_of(user)
  local known = cjson.decode(redis.call('HGET', facts, user) or '{}')
  known.paid_total, known.reservations_confirmed = totals_of(user)
  return known
end
local function unmet_by(known, conditions)
  local unmet = {}
  for i, condition in ipairs(conditions) do
    if not COMPARE[condition.op](known[condition.fact] or 0, condition.value) then
      unmet[#unmet + 1] = i
    end
  end
  return unmet
end
