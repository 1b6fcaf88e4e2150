#!lua
-- Releases holds of one schedule: their seats are free at once, and an active slot that only the
-- hold kept open ends.
--
-- KEYS: epoch seq outbox reservations q:active q:admitted q:holds q:owners s:seats
-- ARGV: epoch, then for each request: reservation, user
-- Reply: {code…}: RELEASED, or it had ended before; NOT_RELEASABLE, it is being paid or is paid;
--   NOT_FOUND, also for a reservation of another user
-- Codes: 1 RELEASED 2 NOT_RELEASABLE 3 NOT_FOUND
--
-- uses: constants guard outbox reservation
redis.call('ZCARD', active)
redis.call('HLEN', admitted)
redis.call('ZCARD', holds)
redis.call('HLEN', owners)
redis.call('HLEN', seats)

local function free_seats(r)
  for _, number in ipairs(r.seats) do
    local value = redis.call('HGET', seats, number)
    if value and string.sub(value, 1, 16) == r.id then
      redis.call('HDEL', seats, number)
    end
  end
end

local function settle_slot(user)
  local base = tonumber(string.match(redis.call('HGET', admitted, user) or '',
    '^%d+ (%d+)') or '0')
  if base > 0 then
    -- A visit that only the hold extended ends now.
    local deadline = math.max(base, now)
    for _, r in ipairs(open_of(user)) do
      deadline = math.max(deadline, r.hold_ends or r.held_until)
    end
    redis.call('ZADD', active, 'XX', deadline, user)
  end
end

local replies = {}
for i = 2, #ARGV, 2 do
  local r = load(ARGV[i])
  local reply = NOT_FOUND
  if r and r.user == ARGV[i + 1] then
    reply = RELEASED
    if r.status == 'paying' or r.status == 'confirmed' or r.status == 'cancelling'
      or r.status == 'cancelled' then
      reply = NOT_RELEASABLE
    elseif live(r) then
      free_seats(r)
      end_reservation(r, 'released')
      settle_slot(r.user)
    end
  end
  replies[#replies + 1] = reply
end
publish()
return replies
