#!lua flags=no-writes
-- Reads the reservations of users that have not ended, or whose lapse is not recorded yet.
--
-- KEYS: epoch reservations q:owners
-- ARGV: epoch, then for each request: user
-- Reply: {now, {record…}…}
--
-- uses: constants guard reservation
local replies = {}
for i = 2, #ARGV do
  local records = {}
  for _, id in ipairs(open_ids(ARGV[i])) do
    records[#records + 1] = redis.call('HGET', reservations, id) or nil
  end
  replies[#replies + 1] = records
end
return { text(now), unpack(replies) }
