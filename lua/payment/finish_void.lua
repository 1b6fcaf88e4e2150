#!lua flags=allow-oom
-- Ends a voided attempt once its debit and its coupon are returned: voiding → declined or voided.
-- The seats are held again if the hold has not lapsed, else they are free. The reasons in
-- DECLINED end as declined, all others as voided.
--
-- KEYS: epoch seq outbox reservations payments q:holds q:owners q:due
-- ARGV: epoch, then for each request: payment, attempt
-- Reply: {{code, payment record}…}: ENDED, now or before; ANOTHER_ATTEMPT, or another end, see
--   the record
-- Codes: 1 ENDED 2 ANOTHER_ATTEMPT 3 NOT_FOUND
--
-- uses: constants guard outbox reservation payment
redis.call('ZCARD', holds)
redis.call('HLEN', owners)
redis.call('ZCARD', due)

local DECLINED = { insufficient_balance = true, coupon_not_applicable = true,
  coupon_expired = true, amount_changed = true, nothing_due = true, too_many_pending = true }

local function end_attempt(p)
  p.state = DECLINED[p.reason] and 'declined' or 'voided'
  payment_event(p)
  save_payment(p)
  redis.call('ZREM', due, p.id)
  local r = load(p.reservation)
  if r and r.status == 'paying' then
    r.payment = nil
    end_wait(r)
    if r.held_until > now then
      r.status = 'held'
      save(r)
      redis.call('ZADD', holds, r.held_until, r.id)
    else
      end_reservation(r, 'expired')
    end
  end
end

local replies = {}
for i = 2, #ARGV, 2 do
  local p = load_payment(ARGV[i])
  local reply = { NOT_FOUND, '' }
  if p then
    local same = p.attempt == tonumber(ARGV[i + 1])
    if same and p.state == 'voiding' then
      end_attempt(p)
    end
    reply = { same and (p.state == 'declined' or p.state == 'voided') and ENDED
      or ANOTHER_ATTEMPT, cmsgpack.pack(p) }
  end
  replies[#replies + 1] = reply
end
publish()
return replies
