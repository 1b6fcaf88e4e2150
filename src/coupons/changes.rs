//! Changes of coupons, under the row lock of the definitions. [`super::publish`] brings them to
//! Redis.

use std::time::Duration;

use super::{Coupon, CouponDefinition, CouponService, Error, sql, store};
use crate::definition::{
    ChangePreconditions, ChangedDefinition, DefinitionEtag, InUseItem, MAX_IN_USE_ITEMS,
};
use crate::http::merge_patch::DefinitionChange;
use crate::ids::CouponId;
use crate::mysql::{self, definitions};

impl CouponService {
    /// Creates a coupon, or replaces or patches its definition. When this returns, all instances
    /// apply the change.
    ///
    /// # Errors
    /// [`Error::Invalid`] with every violation, [`Error::PreconditionFailed`], [`Error::NotFound`]
    /// for a patch, [`Error::QuotaTooSmall`]. Nothing has changed then.
    pub async fn change(
        &self,
        id: &CouponId,
        change: DefinitionChange<CouponDefinition>,
        preconditions: &ChangePreconditions,
    ) -> Result<ChangedDefinition<CouponDefinition>, Error> {
        if let DefinitionChange::Replace(definition) = &change {
            definition.clone().validate(id).map_err(Error::Invalid)?;
        }
        let (mut tx, version) = definitions::begin_change(&self.mysql).await?;
        let before = sql::load(&mut tx, id).await?;
        let stored = before.as_ref().map(CouponDefinition::from);
        let definition = change.resolve(id.as_str(), stored.as_ref(), preconditions)?;
        let coupon = Coupon { version, ..definition.validate(id).map_err(Error::Invalid)? };
        sql::save(&mut tx, &coupon).await?;
        if let Err(error) = self.publish_restrictions(before.as_ref(), &coupon).await {
            self.mark_unverified(id);
            return Err(error);
        }
        if let Err(error) = tx.commit().await {
            // The commit may have succeeded or not. Only restrictions are published so far, so
            // nothing wrong is issued until the settings are verified against MySQL.
            self.mark_unverified(id);
            return Err(mysql::Error::from(error).into());
        }
        self.reload().await?;
        let effective_in_ms = self.publish_committed(id).await?;
        tokio::time::sleep(Duration::from_millis(effective_in_ms)).await;
        Ok(ChangedDefinition { before: stored, after: CouponDefinition::from(&coupon) })
    }

    /// Deletes a coupon of which none was ever issued.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::PreconditionFailed`], [`Error::InUse`].
    pub async fn delete(
        &self,
        id: &CouponId,
        preconditions: &ChangePreconditions,
    ) -> Result<CouponDefinition, Error> {
        let (mut tx, _) = definitions::begin_change(&self.mysql).await?;
        let stored = sql::load(&mut tx, id).await?.ok_or(Error::NotFound)?;
        let stored = CouponDefinition::from(&stored);
        preconditions.check(Some(&DefinitionEtag::of(id.as_str(), &stored)))?;
        // MySQL has old issues that Redis may have lost.
        let mut issues = sql::first_issues(&mut tx, id, MAX_IN_USE_ITEMS).await?;
        if issues.is_empty() {
            // From now on none is issued. A call that misses the settings waits for the lock.
            issues = store::withdraw(&self.redis, id, MAX_IN_USE_ITEMS).await?;
        }
        if !issues.is_empty() {
            let items = issues.into_iter().map(|id| InUseItem::Issue { id });
            return Err(Error::InUse(items.collect()));
        }
        sql::delete(&mut tx, id).await?;
        tx.commit().await.map_err(mysql::Error::from)?;
        self.reload().await?;
        Ok(stored)
    }
}
