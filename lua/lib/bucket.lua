-- The promotion bucket: at most `per_interval` admissions in any span of `interval` milliseconds, whoever calls and however late.
-- It keeps the admissions of the last interval as "time:count" words. More than 64 words are merged from the oldest end under the
-- later time, which can only delay an admission. Beside them stand the totals and, for the estimate, counts of 5-second
-- windows and the best 30 seconds since the settings last changed.
-- While a line stands up again after a loss (lib/restore.lua) nobody is admitted.
-- Gives: allowance() → how many may be admitted now, milliseconds until more may; admit_count(n); recent() → admissions of the last 30 s, the most of any
-- 30 s since the settings last changed.
local function admissions()
  local times, counts, sum = {}, {}, 0
  for time, count in string.gmatch(redis.call('HGET', bucket, 'log') or '', '(%d+):(%d+)') do
    time, count = tonumber(time), tonumber(count)
    if time + interval > now then
      times[#times + 1], counts[#counts + 1], sum = time, count, sum + count
    end
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
local function recent()
  local window, sum = math.floor(now / 5000), 0
  local values = redis.call('HMGET', bucket, 'peak', 'w0', 'w1', 'w2', 'w3', 'w4', 'w5', 'w6', 'w7')
  for i = 2, 9 do
    local start, count = string.match(values[i] or '', '(%d+):(%d+)')
    if start and tonumber(start) > window - 6 then
      sum = sum + tonumber(count)
    end
  end
  return sum, math.max(sum, tonumber(values[1] or '0'))
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
  local window = math.floor(now / 5000)
  local slot = 'w' .. window % 8
  local start, count = string.match(redis.call('HGET', bucket, slot) or '', '(%d+):(%d+)')
  count = tonumber(start) == window and tonumber(count) or 0
  redis.call('HSET', bucket, 'log', table.concat(words, ' '), slot, text(window) .. ':' .. text(count + n))
  redis.call('HINCRBY', bucket, 'admitted', n)
  local _, peak = recent()
  redis.call('HSET', bucket, 'peak', text(peak))
end
