#!lua flags=no-writes
-- Returns the facts of a user that operators have set.
--
-- KEYS: epoch facts
-- ARGV: epoch, user
-- Reply: JSON text, {fact: integer}
--
-- uses: constants guard
return redis.call('HGET', facts, ARGV[2]) or '{}'
