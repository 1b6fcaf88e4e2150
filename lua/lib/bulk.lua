-- Writes of a whole batch with one command for each key.
-- Gives: put(list, first, second) appends both; write_all(command, key, list), in calls of at most 500 arguments; an empty list writes
--   nothing.
local function put(list, first, second)
  local n = #list
  list[n + 1], list[n + 2] = first, second
end
local function write_all(command, key, list)
  for at = 1, #list, 500 do
    redis.call(command, key, unpack(list, at, math.min(at + 499, #list)))
  end
end
