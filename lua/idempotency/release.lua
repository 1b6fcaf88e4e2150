#!lua
-- Frees keys whose request was refused: a refusal is not stored, so the key may be used again.
--
-- KEYS: epoch idempotency idempotency_due
-- ARGV: epoch, then for each request: user, key, object
-- Reply: {code…}: NOT_BOUND, the key is not bound to that object
-- Codes: 1 RELEASED 2 NOT_BOUND
--
-- uses: constants guard idempotency
local replies = {}
for i = 2, #ARGV, 3 do
  local record = recall(ARGV[i], ARGV[i + 1])
  local bound = record ~= nil and record.thing == ARGV[i + 2]
  if bound then
    forget(ARGV[i], ARGV[i + 1])
  end
  replies[#replies + 1] = bound and RELEASED or NOT_BOUND
end
return replies
