-- The record of an issue: see coupon.lua. `uses` has what payments did with it: see redemption.lua.
-- Gives: parse_issue(record) → issue, when it was issued and its terms, all as text; used_at(issue)
--   → when it was used, empty unless it is.
local function parse_issue(record)
  return string.sub(record, 1, 16), string.match(record, '^(%d+):(.*)$', 17)
end
local function used_at(issue)
  local packed = redis.call('HGET', uses, issue)
  local at = packed and cmsgpack.unpack(packed).used_at
  return at and text(at) or ''
end
