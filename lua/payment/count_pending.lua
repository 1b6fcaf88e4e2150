#!lua
-- Counts an external payment among those of its user that wait for a provider. `pending` maps a
-- user to a list of payment .. attempt, 26 bytes each. Entries of payments that have ended stay
-- until the list is full; then the caller finds and names them.
--
-- KEYS: epoch pending
-- ARGV: epoch, user, payment, attempt, how many at most, then entries of payments that have ended
-- Reply: {code, entry…}: COUNTED, now or before; FULL, with all entries
-- Codes: 1 COUNTED 2 FULL
--
-- uses: constants guard
local ENTRY_LENGTH = 26
local user, payment = ARGV[2], ARGV[3]
local own = payment .. string.format('%010d', tonumber(ARGV[4]))
local ended, kept = {}, {}
for i = 6, #ARGV do
  ended[ARGV[i]] = true
end
local list = redis.call('HGET', pending, user) or ''
for at = 1, #list, ENTRY_LENGTH do
  local entry = string.sub(list, at, at + ENTRY_LENGTH - 1)
  if string.sub(entry, 1, 16) ~= payment and not ended[entry] then
    kept[#kept + 1] = entry
  end
end
if #kept >= tonumber(ARGV[5]) then
  return { FULL, unpack(kept) }
end
kept[#kept + 1] = own
redis.call('HSET', pending, user, table.concat(kept))
return { COUNTED }
