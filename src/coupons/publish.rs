//! Publishes the settings of coupons to Redis.
//!
//! A change is published in two steps. Before the commit, [`CouponService::change`] publishes only
//! its restrictions, so that an uncommitted change never allows an issue. After the commit, it
//! publishes all settings. Coupons for which this may have failed are marked as unverified, and
//! [`CouponService::verify_published`] compares them with MySQL.

use std::sync::PoisonError;

use super::{Coupon, CouponService, Error, rules, sql, store, winners};
use crate::ids::CouponId;
use crate::mysql::{self, definitions};
use crate::redis;

impl CouponService {
    /// Publishes the restrictions of a change before its commit. Issues keep the terms of before.
    /// The version 0 marks the settings as incomplete, so [`CouponService::verify_published`]
    /// replaces them.
    pub(super) async fn publish_restrictions(
        &self,
        before: Option<&Coupon>,
        after: &Coupon,
    ) -> Result<(), Error> {
        let Some(before) = before else { return Ok(()) };
        let mut restricted = Coupon {
            version: 0,
            discount: before.discount,
            valid_seconds: before.valid_seconds,
            valid_until: before.valid_until,
            ..after.clone()
        };
        if rules::raises_quota(before, after) {
            restricted.total_quantity = before.total_quantity;
        }
        match store::publish(&self.redis, &restricted, winners::QUOTA_RAISE_DELAY_MS).await? {
            store::CouponPublishOutcome::Published { .. } => Ok(()),
            store::CouponPublishOutcome::InUse { issued } => Err(Error::QuotaTooSmall(issued)),
        }
    }

    /// Marks a coupon whose published settings may differ from those in MySQL.
    pub(super) fn mark_unverified(&self, id: &CouponId) {
        self.unverified.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone());
    }

    /// Publishes the settings of MySQL, unless Redis has this version. Returns after how many
    /// milliseconds all instances apply them.
    pub(super) async fn publish_committed(&self, id: &CouponId) -> Result<u64, Error> {
        let _one_at_a_time = self.publishing.lock().await;
        let (mut tx, _) = definitions::lock(&self.mysql).await?;
        let coupon = sql::load(&mut tx, id).await?.ok_or(Error::NotFound)?;
        let is_published = match store::counts(&self.redis, id).await {
            Ok(counts) => counts.version == coupon.version,
            Err(redis::Error::NotPublished) => false,
            Err(error) => return Err(error.into()),
        };
        let effective_in_ms = if is_published { 0 } else { self.publish_settings(coupon).await? };
        tx.commit().await.map_err(mysql::Error::from)?;
        Ok(effective_in_ms)
    }

    async fn publish_settings(&self, coupon: Coupon) -> Result<u64, Error> {
        match store::publish(&self.redis, &coupon, winners::QUOTA_RAISE_DELAY_MS).await? {
            store::CouponPublishOutcome::Published { effective_in_ms } => Ok(effective_in_ms),
            store::CouponPublishOutcome::InUse { issued } => {
                // `change` refuses such a change, so this is a defect. Stop issuing.
                tracing::error!(
                    coupon = %coupon.id,
                    issued,
                    quota = coupon.total_quantity,
                    "more coupons are issued than the quota"
                );
                let full = Coupon { total_quantity: Some(issued), ..coupon };
                store::publish(&self.redis, &full, winners::QUOTA_RAISE_DELAY_MS).await?;
                Ok(0)
            }
        }
    }

    /// Runs a call. When the settings are not published, publishes them and runs it once more.
    pub(super) async fn with_settings<T, F>(
        &self,
        id: &CouponId,
        call: impl Fn() -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, redis::Error>>,
    {
        match call().await {
            Err(redis::Error::NotPublished) => {
                Box::pin(self.publish_if_missing(id)).await?;
                Ok(call().await?)
            }
            other => Ok(other?),
        }
    }

    /// Like [`CouponService::publish_committed`], but asks MySQL only if the settings are still
    /// missing after earlier callers have finished.
    async fn publish_if_missing(&self, id: &CouponId) -> Result<(), Error> {
        {
            let _after_earlier_callers = self.publishing.lock().await;
            match store::counts(&self.redis, id).await {
                Err(redis::Error::NotPublished) => {}
                other => return Ok(other.map(drop)?),
            }
        }
        self.publish_committed(id).await.map(drop)
    }

    /// Publishes the settings of unverified coupons, where Redis has an older version.
    pub(super) async fn verify_published(&self) {
        let unverified =
            std::mem::take(&mut *self.unverified.lock().unwrap_or_else(PoisonError::into_inner));
        for id in unverified {
            let committed = self.coupon(&id).map(|coupon| coupon.version);
            let outcome = match store::counts(&self.redis, &id).await {
                Ok(counts) if committed.is_none_or(|version| version <= counts.version) => Ok(()),
                // The first request for the coupon publishes it.
                Err(redis::Error::NotPublished) => Ok(()),
                Ok(_) => self.publish_committed(&id).await.map(drop),
                Err(error) => Err(error.into()),
            };
            match outcome {
                Ok(()) | Err(Error::NotFound) => {}
                Err(error) => {
                    tracing::debug!(coupon = %id, %error, "could not verify published settings");
                    self.mark_unverified(&id);
                }
            }
        }
    }
}
