#!lua flags=no-writes
-- Reads reservations.
--
-- KEYS: epoch reservations
-- ARGV: epoch, then for each request: reservation
-- Reply: {now, record…}: the MessagePack map, or an empty string
--
-- uses: constants guard
return { text(now), unpack(redis.call('HMGET', reservations, unpack(ARGV, 2))) }
