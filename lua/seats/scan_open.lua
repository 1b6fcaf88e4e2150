#!lua flags=no-writes
-- Reads the next part of the reservations of a concert that are held or being paid, including holds
-- that have expired but are not recorded as such.
--
-- KEYS: epoch reservations q:owners
-- ARGV: epoch, the cursor of the call before ("0" begins), concert
-- Reply: {now, next cursor ("0": end), record…}
--
-- uses: constants guard
local part, records = redis.call('HSCAN', owners, ARGV[2], 'COUNT', 100), {}
for i = 2, #part[2], 2 do
  local ids = part[2][i]
  for at = 1, #ids, 16 do
    local packed = redis.call('HGET', reservations, string.sub(ids, at, at + 15))
    if packed and cmsgpack.unpack(packed).concert == ARGV[3] then
      records[#records + 1] = packed
    end
  end
end
return { text(now), part[1], unpack(records) }
