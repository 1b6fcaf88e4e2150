#!lua
-- Begins to cancel a confirmed reservation: confirmed → cancelling, its payment confirmed →
-- refunding, and the time at which the cancellation is due is recorded. From here on it will be
-- cancelled, whatever process fails. A record that Redis has pruned is restored from what the
-- caller read in MySQL; that may be old, so the seats must still carry the reservation's mark.
--
-- KEYS: epoch busy reservations payments q:due s:seats
-- ARGV: epoch, milliseconds until the cancellation is due, reservation, user, closes at,
--   idempotency key, its fingerprint, then, when Redis has pruned the records: queue, concert,
--   schedule, detail, amount, held_until, created_at of the reservation, payment, attempt,
--   amount, discount, balance after it, created_at, coupon and issue (both may be empty) of its
--   payment, count, seat…
-- Reply: {code, payment record, reservation record, now}: BEGUN, now or before; CANCELLED,
--   before, under this key; NOT_KEPT, call again with the records from MySQL
-- Codes: 1 BEGUN 2 CANCELLED 3 NOT_BOUGHT 4 TOO_LATE 5 NOT_KEPT 6 UNDER_ANOTHER_KEY
--
-- uses: constants guard reservation payment
local id, user, closes = ARGV[3], ARGV[4], tonumber(ARGV[5])
redis.call('ZCARD', due)

local function lay_back()
  local numbers = {}
  for i = 24, #ARGV do
    numbers[#numbers + 1] = tonumber(ARGV[i])
  end
  local r = {
    id = id, user = user, queue = ARGV[8], concert = ARGV[9], schedule = ARGV[10],
      seats = numbers, detail = ARGV[11], amount = tonumber(ARGV[12]),
    status = 'confirmed', held_until = tonumber(ARGV[13]), created_at = tonumber(ARGV[14]),
      payment = ARGV[15],
  }
  local p = {
    id = ARGV[15], reservation = id, user = user, queue = ARGV[8], state = 'confirmed',
      attempt = tonumber(ARGV[16]), amount = tonumber(ARGV[17]),
    discount = tonumber(ARGV[18]), balance_after = tonumber(ARGV[19]),
      created_at = tonumber(ARGV[20]),
    coupon = ARGV[21] ~= '' and ARGV[21] or nil, issue = ARGV[22] ~= '' and ARGV[22] or nil,
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
  if #ARGV < 24 then
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
  return answer(r.key == ARGV[6] and CANCELLED or UNDER_ANOTHER_KEY, p, r)
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
r.status, r.key, p.state = 'cancelling', ARGV[6], 'refunding'
p.cancel_key, p.cancel_fingerprint = ARGV[6], ARGV[7]
save(r)
save_payment(p)
redis.call('ZADD', due, now + tonumber(ARGV[2]), p.id)
redis.call('HSETNX', busy, r.queue, '')
return answer(BEGUN, p, r)
