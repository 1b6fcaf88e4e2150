//! The call of `coupons/list_unwritten`.

use crate::ids::CouponId;
use crate::redis::{PartitionNamesBatch, RedisClient, scripts};

/// `coupons/list_unwritten`.
pub(super) fn unwritten_coupons(redis: &RedisClient) -> PartitionNamesBatch<CouponId> {
    PartitionNamesBatch::new(redis, &scripts::COUPONS_LIST_UNWRITTEN)
}
