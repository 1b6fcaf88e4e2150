-- How fast a queue admits: admissions in windows of 5 seconds, and the most of any 30 seconds
-- since the settings last changed (`peak`, which a change sets to the last 30 seconds).
-- Gives: recent() → admissions of the last 30 s, the most of any 30 s since the settings last
--   changed; count_pace(n).
local function recent()
  local window, sum = math.floor(now / 5000), 0
  local values = redis.call('HMGET', bucket, 'peak', 'w0', 'w1', 'w2', 'w3', 'w4', 'w5', 'w6',
    'w7')
  for i = 2, 9 do
    local start, count = string.match(values[i] or '', '(%d+):(%d+)')
    if start and tonumber(start) > window - 6 then
      sum = sum + tonumber(count)
    end
  end
  return sum, math.max(sum, tonumber(values[1] or '0'))
end
local function count_pace(n)
  local window = math.floor(now / 5000)
  local slot = 'w' .. window % 8
  local start, count = string.match(redis.call('HGET', bucket, slot) or '', '(%d+):(%d+)')
  count = tonumber(start) == window and tonumber(count) or 0
  redis.call('HSET', bucket, slot, text(window) .. ':' .. text(count + n))
  local _, peak = recent()
  redis.call('HSET', bucket, 'peak', text(peak))
end
