#!lua flags=no-writes
-- Lists the queues of a partition that have something to do.
--
-- KEYS: epoch busy
-- ARGV: epoch
-- Reply: {queue…}
--
-- uses: constants guard
local queues, cursor = {}, '0'
repeat
  local part = redis.call('HSCAN', busy, cursor, 'COUNT', 1000)
  for i = 1, #part[2], 2 do
    queues[#queues + 1] = part[2][i]
  end
  cursor = part[1]
until cursor == '0'
return queues
