#!lua
-- Begins to cancel some or all seats of a confirmed reservation: confirmed → cancelling, its
-- payment confirmed → refunding, and the time at which the cancellation is due is recorded. From
-- here on it will be done, whatever process fails. One cancellation runs at a time. A record that
-- Redis has pruned is restored from what the caller read in MySQL; that may be old, so the seats
-- must still carry the reservation's mark.
--
-- KEYS: epoch busy reservations payments q:due s:seats
-- ARGV: epoch, milliseconds until the cancellation is due, reservation, user, closes at,
--   idempotency key, its fingerprint in hexadecimal, refund of the seats unless they are the last
--   ones, count (0: all that are left), seat…, then, when Redis has pruned the records: queue,
--   concert, schedule, detail, amount, held_until, created_at, title, starts_at (both may be
--   empty), cancellations (JSON) of the reservation, payment, attempt, amount, discount, balance
--   after it, created_at, coupon and issue (both may be empty), refunded, external (JSON, may be
--   empty) of its payment, count, seat…
-- Reply: {code, payment record, reservation record, now}: BEGUN, now or before under this key;
--   CANCELLED, done before under this key; IN_THE_WAY, another cancellation must be finished first;
--   NOT_KEPT, call again with the records from MySQL
-- Codes: 1 BEGUN 2 CANCELLED 3 NOT_BOUGHT 4 TOO_LATE 5 NOT_KEPT 6 IN_THE_WAY
--
-- uses: constants guard reservation payment
local id, user, closes, key = ARGV[3], ARGV[4], tonumber(ARGV[5]), ARGV[6]
local stored = 9 + tonumber(ARGV[9])
redis.call('ZCARD', due)

local function stored_records()
  local function word(i)
    return ARGV[stored + i] ~= '' and ARGV[stored + i] or nil
  end
  local function number(i)
    return tonumber(ARGV[stored + i])
  end
  local numbers = {}
  for i = stored + 22, #ARGV do
    numbers[#numbers + 1] = tonumber(ARGV[i])
  end
  local done = cjson.decode(ARGV[stored + 10])
  local r = {
    id = id, user = user, queue = word(1), concert = word(2), schedule = word(3),
    detail = word(4), amount = number(5), held_until = number(6), created_at = number(7),
    title = word(8), starts_at = number(9), cancellations = #done > 0 and done or nil,
    status = 'confirmed', payment = word(11), paid = number(13) - number(14),
    discount = number(14), seats = numbers,
  }
  local p = {
    id = r.payment, reservation = id, user = user, queue = r.queue, state = 'confirmed',
    attempt = number(12), amount = number(13), discount = number(14),
    balance_after = number(15), created_at = number(16), coupon = word(17), issue = word(18),
    refunded = number(19), external = word(20) and cjson.decode(word(20)),
  }
  return r, p
end

local function is_done(r)
  for _, cancellation in ipairs(r.cancellations or {}) do
    if cancellation.key == key then
      return true
    end
  end
  return false
end

-- The requested seats, or nil if one of them does not belong to the reservation any more.
local function requested(r)
  if ARGV[9] == '0' then
    return r.seats
  end
  local owned, numbers = {}, {}
  for _, number in ipairs(r.seats) do
    owned[number] = true
  end
  for i = 10, stored do
    local number = tonumber(ARGV[i])
    if not owned[number] then
      return nil
    end
    numbers[#numbers + 1] = number
  end
  return numbers
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
  if #ARGV <= stored then
    return answer(NOT_KEPT)
  end
  r, p = stored_records()
end
if r.user ~= user then
  return answer(NOT_KEPT)
end
if is_done(r) then
  return answer(CANCELLED, p, r)
end
if r.status == 'cancelling' then
  return answer(p.cancelling.key == key and BEGUN or IN_THE_WAY, p, r)
end
if r.status ~= 'confirmed' or p.state ~= 'confirmed' then
  return answer(NOT_BOUGHT)
end
local numbers = requested(r)
if not numbers then
  return answer(NOT_BOUGHT)
end
if now >= closes then
  return answer(TOO_LATE)
end
if not owns_seats(r) then
  return answer(NOT_BOUGHT)
end
local refunded, last = p.refunded or 0, #numbers == #r.seats
local refund = last and p.amount - p.discount - refunded or tonumber(ARGV[8])
p.cancelling = {
  number = #(r.cancellations or {}) + 1, seats = numbers, last = last, refund = refund,
  total = refunded + refund, key = key, fingerprint = ARGV[7],
}
r.status, p.state = 'cancelling', 'refunding'
save(r)
save_payment(p)
redis.call('ZADD', due, now + tonumber(ARGV[2]), p.id)
redis.call('HSETNX', busy, r.queue, '')
return answer(BEGUN, p, r)
