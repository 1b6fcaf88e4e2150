#!lua flags=no-writes
-- How many of a coupon are issued, and whether it is sold out for good under the settings as laid.
--
-- KEYS: epoch c:settings c:issues
-- ARGV: epoch
-- Reply: {now, issued, edition, version, ends_at, sold out (1 or 0)}; −2 the coupon has no settings
--
-- uses: constants guard coupon
return { text(now), count, edition, version, text(ends_at), count >= total and 1 or 0 }
