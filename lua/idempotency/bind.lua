#!lua
-- Binds a user's idempotency key to one request and to the object that the request creates, or
-- returns what the key is bound to.
--
-- KEYS: epoch idempotency idempotency_due
-- ARGV: epoch, then for each request: user, key, fingerprint, object
-- Reply: {{code, object}…}: KNOWN, bound before to the same request; REUSED, bound to another
--   request
-- Codes: 1 BOUND 2 KNOWN 3 REUSED
--
-- uses: constants guard idempotency
local replies = {}
for i = 2, #ARGV, 4 do
  local user, key, fingerprint, thing = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local record, reply = recall(user, key), nil
  if not record then
    remember(user, key, { fingerprint = fingerprint, thing = thing })
    reply = { BOUND, thing }
  elseif record.fingerprint == fingerprint then
    reply = { KNOWN, record.thing }
  else
    reply = { REUSED, '' }
  end
  replies[#replies + 1] = reply
end
return replies
