#!lua flags=allow-oom
-- Resumes a cancellation that was lost after its money was refunded: payment confirmed →
-- refunding, reservation confirmed → cancelling, due at once, so that the sweep ends it.
-- Of an external payment the refund of the wallet alone does not tell the total, so that of the
-- seats is computed.
--
-- KEYS: epoch busy reservations payments q:due
-- ARGV: epoch, payment, what was refunded in total, then the seats that were cancelled
-- Reply: a code: NOT_CONFIRMED, it is not confirmed here with these seats
-- Codes: 1 RESUMED 2 NOT_CONFIRMED
--
-- uses: constants guard reservation payment
redis.call('ZCARD', due)
local p = load_payment(ARGV[2])
local r = p and load(p.reservation)
if not r or p.state ~= 'confirmed' or r.status ~= 'confirmed' then
  return NOT_CONFIRMED
end
local wanted, numbers = {}, {}
for i = 4, #ARGV do
  wanted[tonumber(ARGV[i])] = true
end
for _, number in ipairs(r.seats) do
  if wanted[number] then
    numbers[#numbers + 1] = number
  end
end
local function total_refund()
  local paid = p.amount - p.discount
  if not p.external then
    return tonumber(ARGV[3])
  end
  if #numbers == #r.seats then
    return paid
  end
  local price = 0
  for _, seat in ipairs(cjson.decode(r.detail)) do
    price = price + (wanted[seat.number] and seat.price or 0)
  end
  local share = p.amount > 0 and math.floor(paid * price / p.amount) or 0
  return math.max(tonumber(ARGV[3]), (p.refunded or 0) + share)
end
local total = total_refund()
local refund = total - (p.refunded or 0)
if #numbers == 0 or refund <= 0 then
  return NOT_CONFIRMED
end
p.cancelling = {
  number = #(r.cancellations or {}) + 1, seats = numbers, last = #numbers == #r.seats,
  refund = refund, total = total, key = '', fingerprint = '',
}
p.state, r.status = 'refunding', 'cancelling'
save(r)
save_payment(p)
redis.call('ZADD', due, now, p.id)
redis.call('HSETNX', busy, p.queue, '')
return RESUMED
