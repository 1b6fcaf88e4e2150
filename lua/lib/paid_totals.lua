-- What users have paid: `tallies` maps a user to "total count" over all debits that are not
-- refunded. It changes in the same script as the money, so it is as exact. An attempt in progress
-- counts; voiding it subtracts it again.
-- Gives: totals_of(user) → total, count; add_totals(user, amount, payments); leaves_room(user,
--   balance): whether everything that the user paid can be refunded to this balance.
local function totals_of(user)
  local total, count = string.match(redis.call('HGET', tallies, user) or '0 0', '^(%d+) (%d+)$')
  return tonumber(total), tonumber(count)
end
local function add_totals(user, amount, payments)
  local total, count = totals_of(user)
  redis.call('HSET', tallies, user,
    text(math.max(0, total + amount)) .. ' ' .. text(math.max(0, count + payments)))
end
local function leaves_room(user, balance)
  local total = totals_of(user)
  return balance + total <= MAX_BALANCE
end
