#!lua flags=allow-oom
-- Claims the reference of a provider for an attempt of a payment, so that it pays nothing else. The
-- hash of a reference determines its partition; `references` maps it to payment .. attempt. A claim
-- that confirmed nothing is replaced: that of an earlier attempt of the same payment, or one that
-- the caller has found to be stale.
--
-- KEYS: epoch references
-- ARGV: epoch, hash of provider and reference, payment, attempt, stale claim (may be empty)
-- Reply: {code, claim}: KNOWN, claimed before; TAKEN, with the claim of another payment
-- Codes: 1 CLAIMED 2 KNOWN 3 TAKEN
--
-- uses: constants guard
local own, attempt = ARGV[3] .. ARGV[4], tonumber(ARGV[4])
local known = redis.call('HGET', references, ARGV[2])
local function is_replaceable(claim)
  return claim == ARGV[5]
    or string.sub(claim, 1, 16) == ARGV[3] and tonumber(string.sub(claim, 17)) < attempt
end
if known == own then
  return { KNOWN, own }
end
if known and not is_replaceable(known) then
  return { TAKEN, known }
end
redis.call('HSET', references, ARGV[2], own)
return { CLAIMED, own }
