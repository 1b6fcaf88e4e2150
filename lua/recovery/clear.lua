#!lua flags=allow-oom
-- Drops what is left of a partition's old state. The keys to be dropped follow those of the header; the fence stays.
--
-- KEYS: epoch
-- ARGV: epoch
-- Reply: how many were dropped
--
-- uses: constants guard
local dropped = 0
for i = 2, #KEYS do
  dropped = dropped + redis.call('UNLINK', KEYS[i])
end
return dropped
