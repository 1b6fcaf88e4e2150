#!lua
-- Changes some facts of a user and keeps the others.
--
-- KEYS: epoch seq outbox facts
-- ARGV: epoch, user, the largest number of facts, then for each change: fact, value (empty: the
--   fact is removed)
-- Reply: {code, all facts (JSON text)}: TOO_MANY, nothing changed
-- Codes: 1 MERGED 2 TOO_MANY
--
-- uses: constants guard outbox
local user = ARGV[2]
local before = redis.call('HGET', facts, user) or '{}'
local known = cjson.decode(before)
for i = 4, #ARGV, 2 do
  known[ARGV[i]] = ARGV[i + 1] ~= '' and ARGV[i + 1] or nil
end

-- cjson would round large integers, so the text is composed. Names of facts need no escapes.
local words = {}
for fact, value in pairs(known) do
  local digits = type(value) == 'number' and text(value) or value
  words[#words + 1] = '"' .. fact .. '":' .. digits
end
if #words > tonumber(ARGV[3]) then
  return { TOO_MANY, before }
end
table.sort(words)
local after = '{' .. table.concat(words, ',') .. '}'
if #words == 0 then
  redis.call('HDEL', facts, user)
else
  redis.call('HSET', facts, user, after)
end
emit('facts', { user = user, facts = after, at = now })
publish()
return { MERGED, after }
