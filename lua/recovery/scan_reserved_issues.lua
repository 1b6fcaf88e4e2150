#!lua flags=no-writes
-- Goes through what payments do with a coupon's issues, a part in each call, and tells those that are taken and not used.
--
-- KEYS: epoch c:uses
-- ARGV: epoch, the cursor of the call before ("0" begins)
-- Reply: {next cursor ("0": all was seen), issue, payment, …}
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
