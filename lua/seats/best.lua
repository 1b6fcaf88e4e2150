#!lua
-- Holds the best adjacent seats of a schedule: consecutive numbers in the earliest section that
-- has them; among those, seats that leave no single seat alone; among those, the lowest numbers.
-- In a free run the lowest numbers are taken, so only a run of exactly one seat more leaves one
-- alone. A call reads at most MAX_READ_SEATS numbers (and what the last request needs to end its
-- run), whatever the size of the schedule. A request that needs more is answered CONTINUE with a
-- cursor. Requests of one call share what was read and how far was searched.
--
-- KEYS: epoch reservations q:settings q:active q:admitted q:waiting q:concerts q:holds q:owners
--   q:bought q:turnover s:seats
-- ARGV: epoch, queue, concert, schedule, published version and seats of the concert, booking opens
--   at, booking closes at, hold_ms, max seats per user, title of the concert, start of the show,
--   how many sections, for each: first number, last number, price, what follows a number in the
--   JSON text of a seat; then for each request: reservation, user, score, quantity, and the cursor:
--   section (from 1), number, the second best start of that section or 0; whether it has an
--   idempotency key (1 or 0)
-- Reply: {now, {code, …}…}: HELD: held_until, section, first number; CONTINUE: section, number,
--   second best; EXPIRED: the token has no active slot; or NOT_PUBLISHED, also for another
--   version of the concert
-- Codes: 1 HELD 3 LIMIT_EXCEEDED 4 NOT_OPEN 5 WAITING 6 EXPIRED 7 NOT_ENOUGH 8 CONTINUE
--   9 REPEATED 10 VISIT_OVER
--
-- uses: constants guard settings turnover reservation seat bulk hold
local MAX_READ_SEATS, READ_CHUNK = 2048, 256

local sections, at = {}, 13
for i = 1, tonumber(ARGV[12]) do
  sections[i] = { from = tonumber(ARGV[at]), to = tonumber(ARGV[at + 1]),
    price = tonumber(ARGV[at + 2]), tail = ARGV[at + 3] }
  at = at + 4
end

-- A seat is read once for each call: this call may have held it already, which is written at the
-- end.
local free, read_count = {}, 0
local function read_seats(first, last)
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
  read_count = read_count + #numbers
end
local function all_free(first, count)
  read_seats(first, first + count - 1)
  for number = first, first + count - 1 do
    if not free[number] then
      return false
    end
  end
  return true
end

-- By quantity: how far the requests of this call have searched. Nothing below suits another one.
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
        if read_count >= MAX_READ_SEATS then
          return nil, index, number - run, second
        end
        read_seats(number, math.min(section.to, number + READ_CHUNK - 1))
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
      -- It was taken since an earlier call found it. There may be another one behind it.
      number, second = second, 0
    else
      index, number = index + 1, 0
    end
  end
  return 0, index, 0, 0
end

local function best(id, user, score, count, index, number, second, keyed)
  if keyed == '1' and is_repeated(id, user) then
    return { REPEATED }
  end
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
  place(id, user, score, cmsgpack.pack({ seats = numbers, detail = detail, amount = amount,
    score = score }), numbers)
  return { HELD, held_until, index, first }
end

local replies, users = {}, {}
for i = at, #ARGV, 8 do
  users[#users + 1] = ARGV[i + 1]
end
read_users(users)
for i = at, #ARGV, 8 do
  replies[#replies + 1] =
    best(ARGV[i], ARGV[i + 1], ARGV[i + 2], tonumber(ARGV[i + 3]), tonumber(ARGV[i + 4]),
      tonumber(ARGV[i + 5]), tonumber(ARGV[i + 6]), ARGV[i + 7])
end
write()
return { text(now), unpack(replies) }
