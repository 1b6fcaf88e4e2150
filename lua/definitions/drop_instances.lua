#!lua flags=allow-oom
-- Removes the records of instances that have not written to them since they were read.
--
-- KEYS: epoch instances
-- ARGV: epoch, then for each instance: its id and the version in its record
-- Reply: how many were removed
--
-- uses: constants guard
local removed = 0
for i = 2, #ARGV, 2 do
  if redis.call('HGET', instances, ARGV[i]) == ARGV[i + 1] then
    removed = removed + redis.call('HDEL', instances, ARGV[i])
  end
end
return removed
