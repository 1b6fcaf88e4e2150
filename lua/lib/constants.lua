-- Numbers that scripts and the service share. `build.rs` makes Rust constants of them.
-- Gives: each name below.
-- The epoch in Redis is not the one that the caller knows: nothing was done.
local STALE_EPOCH = -1
-- The queue, coupon, concert or reward is not published in Redis in this version: nothing was done.
local NOT_PUBLISHED = -2
-- Something is still in use: nothing was done.
local STILL_IN_USE = -3
-- The lowest score of an arrival. Scores below it belong to the lottery.
local FIRST_ARRIVAL_SCORE = 1099511627776
-- Milliseconds for which an idempotency key is kept: 24 hours.
local IDEMPOTENCY_KEPT_MS = 86400000
-- Milliseconds for which the record of a payment's operation on a wallet or a coupon is kept: seven
-- days, longer than any retry of a payment.
local OPERATION_KEPT_MS = 604800000
