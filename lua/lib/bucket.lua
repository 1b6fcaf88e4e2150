-- The promotion bucket: at most `per_interval` admissions in any span of `interval` milliseconds,
-- whichever instance calls and however late. It keeps the admissions of the last interval as
-- "time:count" words. More than 64 words are merged from the oldest end under the later time,
-- which can only delay an admission. The same hash keeps the totals. During the restore window
-- after a loss (lib/queue_restore.lua) no user is admitted.
-- An entry of the future (Redis' clock went back) counts as one of now, so that it delays
-- admissions by one interval at most.
-- Gives: is_restoring(); allowance() → how many may be admitted now, milliseconds until more may;
--   admit_count(n).
local function is_restoring()
  return tonumber(redis.call('HGET', bucket, 'restore_until') or '0') > now
end
local function write_admissions(times, counts)
  local words = {}
  for i = 1, #times do
    words[i] = text(times[i]) .. ':' .. text(counts[i])
  end
  redis.call('HSET', bucket, 'log', table.concat(words, ' '))
end
local function admissions()
  local times, counts, sum, future = {}, {}, 0, false
  for time, count in string.gmatch(redis.call('HGET', bucket, 'log') or '', '(%d+):(%d+)') do
    time, count = tonumber(time), tonumber(count)
    if time > now then
      time, future = now, true
    end
    if time + interval > now then
      times[#times + 1], counts[#counts + 1], sum = time, count, sum + count
    end
  end
  if future then
    write_admissions(times, counts)
  end
  return times, counts, sum
end
local function allowance()
  local restore_until = tonumber(redis.call('HGET', bucket, 'restore_until') or '0')
  if restore_until > now then
    return 0, restore_until - now
  end
  local times, _, sum = admissions()
  if sum < per_interval then
    return per_interval - sum, 0
  end
  return 0, times[1] and times[1] + interval - now or 0
end
local function admit_count(n)
  local times, counts = admissions()
  if times[#times] == now then
    counts[#counts] = counts[#counts] + n
  else
    times[#times + 1], counts[#counts + 1] = now, n
  end
  local words, first, carry = {}, 1, 0
  while #times - first >= 64 do
    carry, first = carry + counts[first], first + 1
  end
  for i = first, #times do
    words[#words + 1] = text(times[i]) .. ':' .. text(counts[i] + carry)
    carry = 0
  end
  redis.call('HSET', bucket, 'log', table.concat(words, ' '))
  redis.call('HINCRBY', bucket, 'admitted', n)
end
