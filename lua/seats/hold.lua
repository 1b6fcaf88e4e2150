#!lua
-- Holds seats of one schedule for active users: all seats of a request or none.
--
-- KEYS: epoch reservations q:settings q:active q:admitted q:waiting q:concerts q:holds q:owners
--   q:bought q:turnover s:seats
-- ARGV: epoch, queue, concert, schedule, published version and seats of the concert, booking opens
--   at, booking closes at, hold_ms, max seats per user, title of the concert, start of the show,
--   then for each request: reservation, user, score, MessagePack map of {seats, detail, amount,
--   score}, whether it has an idempotency key (1 or 0), count, seat…
-- Reply: {now, {code, …}…}: HELD: held_until; TAKEN: {seats…}, {those that the user holds
--   already…}; EXPIRED: the token has no active slot; or NOT_PUBLISHED, also for another version of
--   the concert
-- Codes: 1 HELD 2 TAKEN 3 LIMIT_EXCEEDED 4 NOT_OPEN 5 WAITING 6 EXPIRED 7 REPEATED
--   8 VISIT_OVER
--
-- uses: constants guard settings turnover reservation seat bulk hold
local starts, users, wanted, at = {}, {}, {}, 12
while at <= #ARGV do
  local count = tonumber(ARGV[at + 5])
  for i = at + 6, at + 5 + count do
    wanted[#wanted + 1] = ARGV[i]
  end
  starts[#starts + 1], users[#users + 1] = at, ARGV[at + 1]
  at = at + 6 + count
end
read_users(users)
local values = {}
for from = 1, #wanted, 500 do
  local to = math.min(from + 499, #wanted)
  for i, value in ipairs(redis.call('HMGET', seats, unpack(wanted, from, to))) do
    values[wanted[from + i - 1]] = value
  end
end

local done = { HELD, held_until }
local function hold(id, user, score, own, keyed, count, ...)
  if keyed == '1' and is_repeated(id, user) then
    return { REPEATED }
  end
  local refused, numbers = refusal(user, score, tonumber(count)), { ... }
  if refused then
    return { refused }
  end
  local taken, yours = {}, {}
  for _, number in ipairs(numbers) do
    local value = values[number]
    local state = value and seat_state(value)
    if state then
      taken[#taken + 1] = number
      if state == HELD_SEAT and owner_of(value) == user then
        yours[#yours + 1] = number
      end
    end
  end
  if #taken > 0 then
    return { TAKEN, taken, yours }
  end
  place(id, user, score, own, numbers)
  for _, number in ipairs(numbers) do
    values[number] = id .. held_until
  end
  return done
end

local replies = {}
for i, start in ipairs(starts) do
  replies[i] = hold(unpack(ARGV, start, (starts[i + 1] or at) - 1))
end
write()
return { text(now), unpack(replies) }
