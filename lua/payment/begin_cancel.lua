#!lua
-- Begins to cancel a reservation that was bought: confirmed → cancelling, its payment confirmed → refunding, and the moment by which it is due is noted. From
-- here on it will be cancelled, whatever crashes. What Redis keeps no more is laid back from what the caller read in MySQL; that may be old, so
-- the seats must still bear the reservation's mark.
--
-- KEYS: generation reservations payments q:due s:seats
-- ARGV: generation, milliseconds until the cancelling is due, reservation, user, closes at,
--   then, where Redis keeps it no more: queue, concert, schedule, detail, amount, held_until, created_at of the reservation,
--   payment, attempt, amount, discount, balance after it, created_at, coupon and issue (both may be empty) of its payment, count, seat…
-- Reply: {state, payment record, reservation record, now}
--   1 begun, now or before; 2 cancelled before; 3 not bought; 4 too late; 5 not kept here, call again with what MySQL has
--
-- uses: guard reservation payment
local BEGUN, CANCELLED, NOT_BOUGHT, TOO_LATE, NOT_KEPT = 1, 2, 3, 4, 5
local id, user, closes = ARGV[3], ARGV[4], tonumber(ARGV[5])
redis.call('ZCARD', due)

local function lay_back()
  local numbers = {}
  for i = 22, #ARGV do
    numbers[#numbers + 1] = tonumber(ARGV[i])
  end
  local r = {
    id = id, user = user, queue = ARGV[6], concert = ARGV[7], schedule = ARGV[8], seats = numbers, detail = ARGV[9], amount = tonumber(ARGV[10]),
    status = 'confirmed', held_until = tonumber(ARGV[11]), created_at = tonumber(ARGV[12]), payment = ARGV[13],
  }
  local p = {
    id = ARGV[13], reservation = id, user = user, queue = ARGV[6], state = 'confirmed', attempt = tonumber(ARGV[14]), amount = tonumber(ARGV[15]),
    discount = tonumber(ARGV[16]), balance_after = tonumber(ARGV[17]), created_at = tonumber(ARGV[18]),
    coupon = ARGV[19] ~= '' and ARGV[19] or nil, issue = ARGV[20] ~= '' and ARGV[20] or nil,
  }
  return r, p
end

local function owns_seats(r)
  for _, value in ipairs(redis.call('HMGET', seats, unpack(r.seats))) do
    if value ~= r.id .. 's' then
      return false
    end
  end
  return true
end

local function answer(state, p, r)
  return { state, p and cmsgpack.pack(p) or '', r and cmsgpack.pack(r) or '', text(now) }
end

local r = load(id)
local p = r and r.payment and load_payment(r.payment)
if not r or r.status == 'confirmed' and not p then
  if #ARGV < 22 then
    return answer(NOT_KEPT)
  end
  r, p = lay_back()
end
if r.user ~= user then
  return answer(NOT_KEPT)
end
if r.status == 'cancelling' then
  return answer(BEGUN, p, r)
end
if r.status == 'cancelled' then
  return answer(CANCELLED, p, r)
end
if r.status ~= 'confirmed' or p.state ~= 'confirmed' then
  return answer(NOT_BOUGHT)
end
if now >= closes then
  return answer(TOO_LATE)
end
if not owns_seats(r) then
  return answer(NOT_BOUGHT)
end
r.status, p.state = 'cancelling', 'refunding'
save(r)
save_payment(p)
redis.call('ZADD', due, now + tonumber(ARGV[2]), p.id)
return answer(BEGUN, p, r)
