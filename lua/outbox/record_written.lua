#!lua flags=allow-oom
-- Records how far MySQL has the outbox. Entries that MySQL has are kept for a while, so that they
-- can be written again to a MySQL that went back. This trims those that are old enough, or that
-- exceed the bytes that may be kept.
--
-- `kept` lists groups of entries, the oldest first: {when the group began, its last entry, bytes}.
--
-- KEYS: epoch seq outbox written kept
-- ARGV: epoch, checkpoint in MySQL, bytes of the entries that this flush wrote, milliseconds to keep
--   an entry, bytes to keep
-- Reply: 1, or 0 if Redis is older than the checkpoint; then nothing was changed
--
-- uses: constants guard
local GROUPS = 16
local through, bytes = tonumber(ARGV[2]), tonumber(ARGV[3])
local keep_ms, keep_bytes = tonumber(ARGV[4]), tonumber(ARGV[5])
if through > tonumber(redis.call('GET', seq) or '0') then
  return 0
end
local before = redis.call('GET', written)
local groups = cmsgpack.unpack(redis.call('GET', kept) or '\144')
local changed = through > tonumber(before or '-1')
if changed then
  local newest = groups[#groups]
  if newest and newest[1] > now - keep_ms / GROUPS and newest[3] < keep_bytes / GROUPS then
    newest[2], newest[3] = through, newest[3] + bytes
  else
    groups[#groups + 1] = { now, through, bytes }
  end
  redis.call('SET', written, ARGV[2])
end
local total = 0
for i = 1, #groups do
  total = total + groups[i][3]
end
local trimmed = 0
while groups[1] and groups[1][2] <= through
  and (groups[1][1] <= now - keep_ms or total > keep_bytes) do
  local oldest = table.remove(groups, 1)
  trimmed, total = oldest[2], total - oldest[3]
end
if trimmed > 0 then
  redis.call('XTRIM', outbox, 'MINID', '=', text(trimmed + 1) .. '-0')
end
if changed or trimmed > 0 then
  redis.call('SET', kept, cmsgpack.pack(groups))
end
return 1
