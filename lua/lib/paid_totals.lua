-- What users have paid: `tallies` user → "total count", over all debits that are not given back. Moved in the same step as the money, so that it is as exact.
-- An attempt that is under way counts; it is taken out again if it is turned back.
-- Gives: tally_of(user) → total, count; tally(user, amount, payments).
local function tally_of(user)
  local total, count = string.match(redis.call('HGET', tallies, user) or '0 0', '^(%d+) (%d+)$')
  return tonumber(total), tonumber(count)
end
local function tally(user, amount, payments)
  local total, count = tally_of(user)
  redis.call('HSET', tallies, user, text(math.max(0, total + amount)) .. ' ' .. text(math.max(0, count + payments)))
end
