#!lua flags=no-writes
-- Reads the next part of the reservations of a partition and counts those of a concert that have
-- not ended.
--
-- KEYS: epoch reservations
-- ARGV: epoch, the cursor of the call before ("0" begins), concert
-- Reply: {now, next cursor ("0": end), how many are held, being paid or being cancelled}
--
-- uses: constants guard
local RUNNING = { held = true, paying = true, cancelling = true }
local part, running = redis.call('HSCAN', reservations, ARGV[2], 'COUNT', 200), 0
for i = 2, #part[2], 2 do
  local r = cmsgpack.unpack(part[2][i])
  if r.concert == ARGV[3] and RUNNING[r.status] then
    running = running + 1
  end
end
return { text(now), part[1], running }
