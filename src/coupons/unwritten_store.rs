//! The call of `coupons/list_unwritten`.

use std::sync::Arc;

use crate::ids::CouponId;
use crate::partition::Partition;
use crate::redis::{BatchOperation, Error, KeyScope, LuaScript, RedisClient, ScriptArgs, scripts};

/// `coupons/list_unwritten`. One call answers all waiting requests.
pub(super) struct UnwrittenCouponsBatch(pub(super) RedisClient);

impl BatchOperation for UnwrittenCouponsBatch {
    type Entity = Partition;
    type Request = ();
    type Answer = Arc<Vec<CouponId>>;

    fn script(&self) -> &'static LuaScript {
        &scripts::COUPONS_LIST_UNWRITTEN
    }

    async fn call(
        &self,
        partition: &Partition,
        requests: &[()],
    ) -> Result<Vec<Self::Answer>, Error> {
        let scope = KeyScope::partition(*partition);
        let mut names = self.0.call(self.script(), scope, ScriptArgs::new()).await?.words()?;
        let mut coupons: Vec<CouponId> = Vec::new();
        while !names.is_empty() {
            let name = names.text()?.parse();
            coupons.push(name.map_err(|_| Error::Protocol("expected a coupon".into()))?);
        }
        Ok(vec![coupons.into(); requests.len()])
    }
}
