#!lua
-- Records the strings of user ids. They are needed only in MySQL, so Redis does not keep them.
--
-- KEYS: epoch seq outbox
-- ARGV: epoch, then for each request: user, name
-- Reply: {1}
--
-- uses: constants guard outbox
for i = 2, #ARGV, 2 do
  emit('user', { user = ARGV[i], name = ARGV[i + 1], at = now })
end
publish()
return { 1 }
