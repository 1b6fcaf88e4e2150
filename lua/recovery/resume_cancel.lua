#!lua flags=allow-oom
-- Resumes a cancellation that was lost after its money was refunded: payment confirmed →
-- refunding, reservation confirmed → cancelling, due at once, so that the sweep ends it.
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
local total = tonumber(ARGV[3])
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
