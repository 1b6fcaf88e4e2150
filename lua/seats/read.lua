#!lua flags=no-writes
-- Reads reservations as they stand now.
--
-- KEYS: generation reservations
-- ARGV: generation, then for each request: reservation
-- Reply: {now, record…}: the MessagePack map, or an empty string
--
-- uses: guard
return { text(now), unpack(redis.call('HMGET', reservations, unpack(ARGV, 2))) }
