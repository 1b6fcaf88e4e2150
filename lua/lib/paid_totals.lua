-- What users have paid: `tallies` maps a user to "total count" over all debits that are not
-- refunded. It changes in the same script as the money, so it is as exact. An attempt in progress
-- counts; voiding it subtracts it again.
-- Gives: totals_of(user) → total, count; totals_after(stored text or false, amount, payments) →
--   text; add_totals(user, amount, payments); leaves_room(stored text or false, balance): whether
--   everything that the user paid can be refunded to this balance.
local function read_totals(stored)
  local total, count = string.match(stored or '0 0', '^(%d+) (%d+)$')
  return tonumber(total), tonumber(count)
end
local function totals_of(user)
  return read_totals(redis.call('HGET', tallies, user))
end
local function totals_after(stored, amount, payments)
  local total, count = read_totals(stored)
  return text(math.max(0, total + amount)) .. ' ' .. text(math.max(0, count + payments))
end
local function add_totals(user, amount, payments)
  redis.call('HSET', tallies, user,
    totals_after(redis.call('HGET', tallies, user), amount, payments))
end
local function leaves_room(stored, balance)
  local total = read_totals(stored)
  return balance + total <= MAX_BALANCE
end
