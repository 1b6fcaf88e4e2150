#!lua
-- Replaces all facts of users.
--
-- KEYS: epoch seq outbox facts
-- ARGV: epoch, then for each request: user, facts (JSON text, {fact: integer})
-- Reply: 1
--
-- uses: constants guard outbox
redis.call('HLEN', facts)
for i = 2, #ARGV, 2 do
  if ARGV[i + 1] == '{}' then
    redis.call('HDEL', facts, ARGV[i])
  else
    redis.call('HSET', facts, ARGV[i], ARGV[i + 1])
  end
  emit('facts', { user = ARGV[i], facts = ARGV[i + 1], at = now })
end
publish()
return 1
