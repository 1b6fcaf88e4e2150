#!lua
-- Takes the settings of a queue out of Redis: no user can join, hold seats or be admitted until
-- they are published again. Refuses while users wait or are active, unless the caller forces it,
-- and always while users hold seats or a payment or a cancellation is in progress.
--
-- KEYS: epoch q:settings q:waiting q:active q:bucket q:owners q:due
-- ARGV: epoch, 1 to withdraw it also from users who wait or are active, else 0
-- Reply: {code, arrivals, user…}. arrivals: how many scores were given to arrivals. user: at most
--   20 of the users in the way. IN_USE: nothing was changed
-- Codes: 1 WITHDRAWN 2 IN_USE
--
-- uses: constants guard
local LIMIT = 20
local arrivals, users, seen = redis.call('HGET', bucket, 'joined') or '0', {}, {}
local function add(user)
  if not seen[user] and #users < LIMIT then
    users[#users + 1], seen[user] = user, true
  end
end
redis.call('HLEN', settings)
local booking = redis.call('ZCARD', due) > 0 or redis.call('HLEN', owners) > 0
-- A user with open reservations holds or pays, also after the end of the visit.
local found = redis.call('HSCAN', owners, '0', 'COUNT', LIMIT)[2]
for i = 1, #found, 2 do
  add(found[i])
end
for _, user in ipairs(redis.call('ZRANGEBYSCORE', active, '(' .. text(now), '+inf', 'LIMIT', 0,
  LIMIT)) do
  add(user)
end
for _, user in ipairs(redis.call('ZRANGE', waiting, 0, LIMIT - 1)) do
  add(user)
end
if booking or #users > 0 and ARGV[2] ~= '1' then
  return { IN_USE, arrivals, unpack(users) }
end
redis.call('UNLINK', settings)
return { WITHDRAWN, arrivals, unpack(users) }
