#!lua flags=allow-oom
-- Deletes the old state of a partition. The keys to be deleted follow those of the header; the
-- fence stays.
--
-- KEYS: epoch
-- ARGV: epoch
-- Reply: how many were deleted
--
-- uses: constants guard
local dropped = 0
for i = 2, #KEYS do
  dropped = dropped + redis.call('UNLINK', KEYS[i])
end
return dropped
