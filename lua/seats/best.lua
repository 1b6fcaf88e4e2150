#!lua
-- Holds the best adjacent seats of one schedule: consecutive numbers in the earliest section that has them; of those the ones that leave no single seat
-- alone, where such are there; of those the lowest. In a free run the lowest are taken, so only a run of exactly one seat more leaves one alone.
--
-- A call looks at no more than LOOKED_AT numbers (and what the last request needs to end its run), whatever the schedule's size. A request
-- that is not done by then is told where to go on in another call. Requests of one call share what was read and how far was searched.
--
-- KEYS: epoch reservations q:settings q:active q:admitted q:waiting q:concerts q:holds q:owners q:bought s:seats
-- ARGV: epoch, queue, concert, schedule, version and seats of the concert as laid, booking opens at, booking closes at (empty: never), hold_ms, max seats a user,
--   how many sections, for each of them: first number, last number, price, what follows a number in the JSON text of a seat;
--   then for each request: reservation, user, score, quantity, and where to go on: section (from 1), number, the second best of that section or 0
-- Reply: {now, {state, …}…}
--   1 held: held_until, section, first number; 3 above the limit of a user; 4 booking is not open; 5 waiting; 6 the slot is gone; 7 not enough seats;
--   8 go on at: section, number, second best
--   −2 the queue has no settings, or another version of the concert is laid here
-- Codes: 1 HELD 3 LIMIT_EXCEEDED 4 NOT_OPEN 5 WAITING 6 EXPIRED 7 NOT_ENOUGH 8 CONTINUE
--
-- uses: constants guard settings reservation seat hold
local LOOKED_AT, CHUNK = 2048, 256

local sections, at = {}, 11
for i = 1, tonumber(ARGV[10]) do
  sections[i] = { from = tonumber(ARGV[at]), to = tonumber(ARGV[at + 1]), price = tonumber(ARGV[at + 2]), tail = ARGV[at + 3] }
  at = at + 4
end

-- What is known of a seat is never read again: this call may have held it, and that is written only at its end.
local free, looked = {}, 0
local function look(first, last)
  local numbers = {}
  for number = first, last do
    if free[number] == nil then
      numbers[#numbers + 1] = number
    end
  end
  if #numbers > 0 then
    for i, value in ipairs(redis.call('HMGET', seats, unpack(numbers))) do
      free[numbers[i]] = not seat_state(value)
    end
  end
  looked = looked + #numbers
end
local function all_free(first, count)
  look(first, first + count - 1)
  for number = first, first + count - 1 do
    if not free[number] then
      return false
    end
  end
  return true
end

-- How far the requests of this call for so many seats have searched: below it is nothing for another one.
local searched = {}
local function choose(count, index, number, second)
  local before = searched[count]
  if before and (before.index > index or before.index == index and before.number >= number) then
    index, number, second = before.index, before.number, before.second
  end
  while index <= #sections do
    local section, run = sections[index], 0
    number = math.max(number, section.from)
    while number <= section.to + 1 do
      if number <= section.to and free[number] == nil then
        if looked >= LOOKED_AT then
          return nil, index, number - run, second
        end
        look(number, math.min(section.to, number + CHUNK - 1))
      end
      local open = number <= section.to and free[number]
      if not open and run == count or run == count + 2 then
        return number - run, index, number - run, second
      end
      if open then
        run = run + 1
      else
        if run == count + 1 and second == 0 then
          second = number - run
        end
        run = 0
      end
      number = number + 1
    end
    if second > 0 and all_free(second, count) then
      return second, index, second, 0
    elseif second > 0 then
      -- Taken since an earlier call found it: there may be another behind it.
      number, second = second, 0
    else
      index, number = index + 1, 0
    end
  end
  return 0, index, 0, 0
end

local function best(id, user, score, count, index, number, second)
  local refused = refusal(user, score, count)
  if refused then
    return { refused }
  end
  local first
  first, index, number, second = choose(count, index, number, second)
  searched[count] = { index = index, number = number, second = second }
  if not first then
    return { CONTINUE, index, number, second }
  end
  if first == 0 then
    return { NOT_ENOUGH }
  end
  local numbers, detail, section = {}, {}, sections[index]
  for i = 1, count do
    numbers[i] = first + i - 1
    detail[i] = '{"number":' .. numbers[i] .. section.tail
    free[numbers[i]] = false
  end
  detail = '[' .. table.concat(detail, ',') .. ']'
  local amount = section.price * count
  place(id, user, score, cmsgpack.pack({ seats = numbers, detail = detail, amount = amount, score = score }), numbers)
  return { HELD, held_until, index, first }
end

local replies, users = {}, {}
for i = at, #ARGV, 7 do
  users[#users + 1] = ARGV[i + 1]
end
meet(users)
for i = at, #ARGV, 7 do
  replies[#replies + 1] =
    best(ARGV[i], ARGV[i + 1], ARGV[i + 2], tonumber(ARGV[i + 3]), tonumber(ARGV[i + 4]), tonumber(ARGV[i + 5]), tonumber(ARGV[i + 6]))
end
write()
return { text(now), unpack(replies) }
