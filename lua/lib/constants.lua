-- Numbers that scripts and the service share. `build.rs` makes Rust constants of them.
-- Gives: each name below.
-- The epoch in Redis is not the one that the caller knows: nothing was done.
local STALE_EPOCH = -1
-- The queue, coupon, concert or reward is not published in Redis in this version: nothing was done.
local NOT_PUBLISHED = -2
-- Something is still in use: nothing was done.
local STILL_IN_USE = -3
-- The number of scores in a segment, 2^40. Draw d of a queue has the segment 2d, arrivals after it
-- have the segment 2d + 1. A queue without a draw has arrivals in segment 1.
local SCORES_PER_SEGMENT = 1099511627776
-- The number of age bins in which the ends of visits are counted. They cover 90,000 seconds.
local AGE_BINS = 250
-- The active users of whom a snapshot reads the deadlines at most, and how many of them are those
-- with the earliest deadlines.
local MAX_SAMPLED_VISITS = 160
local NEAREST_VISITS = 32
-- The largest balance, 2^53 - 1: doubles represent it exactly. A balance and what refunds can add
-- to it, the paid total, stay below it together.
local MAX_BALANCE = 9007199254740991
-- Milliseconds for which an idempotency key is kept: 24 hours.
local IDEMPOTENCY_KEPT_MS = 86400000
-- Milliseconds for which the record of a payment's operation on a wallet or a coupon is kept: seven
-- days, longer than any retry of a payment.
local OPERATION_KEPT_MS = 604800000
