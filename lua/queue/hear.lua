#!lua
-- Notes when waiting users were last heard of. Never moves that time back.
--
-- KEYS: epoch q:settings q:waiting q:heard
-- ARGV: epoch, then for each request: user, for how many milliseconds the instance has not heard of
--   them
-- Reply: 1, or NOT_PUBLISHED
--
-- uses: constants guard settings
local users, signs = {}, {}
for i = 2, #ARGV, 2 do
  users[#users + 1] = ARGV[i]
end
redis.call('ZCARD', heard)
for i, score in ipairs(redis.call('ZMSCORE', waiting, unpack(users))) do
  if score and abandon_ms then
    signs[#signs + 1], signs[#signs + 2] = text(now - tonumber(ARGV[2 * i + 1])), users[i]
  end
end
if #signs > 0 then
  redis.call('ZADD', heard, 'GT', unpack(signs))
end
return 1
