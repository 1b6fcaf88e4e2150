#!lua flags=no-writes
-- Reads the next part of the redemptions of a coupon and returns the issues that are reserved and
-- not used.
--
-- KEYS: epoch c:uses
-- ARGV: epoch, the cursor of the call before ("0" begins)
-- Reply: {next cursor ("0": end), issue, payment, …}
--
-- uses: constants guard
local part = redis.call('HSCAN', uses, ARGV[2], 'COUNT', 500)
local reply = { part[1] }
for i = 1, #part[2], 2 do
  local use = cmsgpack.unpack(part[2][i + 1])
  if not use.used_at then
    reply[#reply + 1], reply[#reply + 2] = part[2][i], use.payment
  end
end
return reply
