#!lua
-- Restores which claims a refund can revoke.
--
-- KEYS: epoch revocable
-- ARGV: epoch, then for each claim: user, claim, reward, points, conditions (JSON text)
-- Reply: 1
--
-- uses: constants guard revocable
for i = 2, #ARGV, 5 do
  local list = revocable_of(ARGV[i])
  list[#list + 1] = { claim = ARGV[i + 1], reward = ARGV[i + 2], points = tonumber(ARGV[i + 3]),
    terms = ARGV[i + 4] }
  save_revocable(ARGV[i], list)
end
return 1
