#!lua flags=no-writes
-- Returns how many issues of a coupon exist, and whether it is sold out under the published
-- settings.
--
-- KEYS: epoch c:settings c:issues
-- ARGV: epoch
-- Reply: {now, issued, edition, version, ends_at, sold out (1 or 0)}, or NOT_PUBLISHED
--
-- uses: constants guard coupon
return { text(now), count, edition, version, text(ends_at), count >= total and 1 or 0 }
