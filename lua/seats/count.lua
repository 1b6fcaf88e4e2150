#!lua flags=no-writes
-- Counts the seats of a schedule that are held or sold. Each has a mark, so no seat is read. Marks
-- of holds that have lapsed and are not recorded as such do not count. Those that are recorded are
-- deleted right after it.
--
-- KEYS: epoch reservations q:holds s:seats
-- ARGV: epoch, schedule
-- Reply: {how many}
--
-- uses: constants guard reservation
local count = redis.call('HLEN', seats)
for _, id in ipairs(redis.call('ZRANGEBYSCORE', holds, '-inf', text(now), 'LIMIT', 0, 256)) do
  local r = load(id)
  if r and r.status == 'held' and r.schedule == ARGV[2] then
    for _, value in ipairs(redis.call('HMGET', seats, unpack(r.seats))) do
      if value and string.sub(value, 1, 16) == id then
        count = count - 1
      end
    end
  end
end
return { count }
