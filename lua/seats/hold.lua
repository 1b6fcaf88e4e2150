#!lua
-- Holds seats of one schedule for users who are active: all seats of a request or none.
--
-- KEYS: generation reservations q:settings q:active q:admitted q:waiting q:concerts q:holds q:owners q:bought s:seats
-- ARGV: generation, queue, concert, schedule, version and seats of the concert as laid, booking opens at, booking closes at (empty: never), hold_ms, max seats a user,
--   then for each request: reservation, user, score, amount, detail, count, seat…
-- Reply: {now, {state, …}…}
--   1 held: held_until; 2 taken: seats…; 3 above the limit of a user; 4 booking is not open; 5 waiting; 6 the slot is gone
--   −2 the queue has no settings, or another version of the concert is laid here
--
-- uses: guard settings reservation seat hold
local requests, users, wanted, at = {}, {}, {}, 10
while at <= #ARGV do
  local count, numbers = tonumber(ARGV[at + 5]), {}
  for i = 1, count do
    numbers[i] = tonumber(ARGV[at + 5 + i])
    wanted[#wanted + 1] = numbers[i]
  end
  requests[#requests + 1] = { ARGV[at], ARGV[at + 1], ARGV[at + 2], tonumber(ARGV[at + 3]), ARGV[at + 4], numbers }
  users[#users + 1] = ARGV[at + 1]
  at = at + 6 + count
end
meet(users)
local values = {}
for from = 1, #wanted, 500 do
  local to = math.min(from + 499, #wanted)
  for i, value in ipairs(redis.call('HMGET', seats, unpack(wanted, from, to))) do
    values[wanted[from + i - 1]] = value
  end
end

local function hold(id, user, score, amount, detail, numbers)
  local refused = refusal(user, score, #numbers)
  if refused then
    return { refused }
  end
  local clash = { TAKEN }
  for _, number in ipairs(numbers) do
    if seat_state(values[number]) then
      clash[#clash + 1] = number
    end
  end
  if #clash > 1 then
    return clash
  end
  local held_until = place(id, user, score, amount, detail, numbers)
  for _, number in ipairs(numbers) do
    values[number] = id .. held_until
  end
  return { HELD, held_until }
end

local replies = {}
for i, request in ipairs(requests) do
  replies[i] = hold(unpack(request))
end
write()
return { text(now), unpack(replies) }
