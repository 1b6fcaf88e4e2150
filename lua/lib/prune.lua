-- Reads the next part of a hash of MessagePack records and deletes those that have ended, that
-- MySQL has, and whose retention is over. ARGV 2…4 are the cursor of the call before ("0"
-- begins), the checkpoint in MySQL, and for how many milliseconds a record is kept after its end.
-- Gives: prune(key, ended(record) → boolean) → {now, next cursor ("0": end), how many were
--   deleted}.
local LOOKED_AT = 200
local function prune(key, ended)
  local part = redis.call('HSCAN', key, ARGV[2], 'COUNT', LOOKED_AT)
  local checkpoint, latest, gone = tonumber(ARGV[3]), now - tonumber(ARGV[4]), {}
  for i = 1, #part[2], 2 do
    local record = cmsgpack.unpack(part[2][i + 1])
    if ended(record) and (record.n or math.huge) <= checkpoint and record.at <= latest
      and #gone < 1000 then
      gone[#gone + 1] = part[2][i]
    end
  end
  if #gone > 0 then
    redis.call('HDEL', key, unpack(gone))
  end
  return { text(now), part[1], #gone }
end
