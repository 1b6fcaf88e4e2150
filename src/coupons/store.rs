//! The scripts of coupons, one batch or function each.

use super::coupon::{Coupon, CouponCounts, CouponIssue};
use super::uses::{CouponRedemption, RedemptionOutcome};
use crate::ids::{CouponId, IssueId, UserId};
use crate::money::Money;
use crate::partition::Partition;
use crate::redis::{
    BatchOperation, Error, KeyScope, LuaScript, RedisClient, ReplyReader, ScriptArgs, ScriptReply,
    scripts,
};

/// What came of asking for a coupon.
#[derive(Debug)]
pub(super) enum IssueOutcome {
    /// The user has it; `fresh` when this call gave it.
    Given {
        issue: CouponIssue,
        fresh: bool,
    },
    SoldOut,
    NotStarted,
    Ended,
}

/// `coupons/issue`.
pub(super) struct IssueBatch(pub(super) RedisClient);

impl BatchOperation for IssueBatch {
    type Entity = CouponId;
    type Request = UserId;
    type Answer = IssueOutcome;

    fn script(&self) -> &'static LuaScript {
        &scripts::COUPONS_ISSUE
    }

    async fn call(&self, coupon: &CouponId, users: &[UserId]) -> Result<Vec<IssueOutcome>, Error> {
        let ids: Vec<_> = users.iter().map(|_| IssueId::new(coupon.slot())).collect();
        let requests: Vec<[u8; 16]> = users
            .iter()
            .zip(&ids)
            .flat_map(|(user, id)| [*user.as_bytes(), *id.as_bytes()])
            .collect();
        let mut args = ScriptArgs::new();
        args.text(coupon.as_str()).bytes(requests.as_flattened());
        let place = KeyScope::coupon(self.0.keys(), coupon);
        let mut words = self.0.call(self.script(), place, args).await?.words()?;
        let now = words.int()?;
        let asked = users.iter().zip(ids);
        words
            .rest()
            .zip(asked)
            .map(|(reply, (user, id))| issued(reply, coupon, *user, (id, now)))
            .collect()
    }
}

/// What a request came to; `fresh` is the id that it offered, and the moment.
fn issued(
    reply: ScriptReply,
    coupon: &CouponId,
    user: UserId,
    fresh: (IssueId, i64),
) -> Result<IssueOutcome, Error> {
    let mut words = match reply {
        ScriptReply::Int(1) => {
            let issue = CouponIssue {
                id: fresh.0,
                coupon: coupon.clone(),
                user,
                issued_at: fresh.1,
                used_at: None,
            };
            return Ok(IssueOutcome::Given { issue, fresh: true });
        }
        ScriptReply::Int(3) => return Ok(IssueOutcome::SoldOut),
        ScriptReply::Int(4) => return Ok(IssueOutcome::NotStarted),
        ScriptReply::Int(5) => return Ok(IssueOutcome::Ended),
        other => other.words()?,
    };
    match words.int()? {
        2 => Ok(IssueOutcome::Given { issue: issue(&mut words, coupon, user)?, fresh: false }),
        other => Err(Error::Protocol(format!("state {other}"))),
    }
}

fn issue(words: &mut ReplyReader, coupon: &CouponId, user: UserId) -> Result<CouponIssue, Error> {
    let id = IssueId::from_slice(&words.word()?.bytes()?)
        .ok_or_else(|| Error::Protocol("wanted an issue's id".into()))?;
    let issued_at = words.int()?;
    let used_at = words.text()?.parse().ok();
    Ok(CouponIssue { id, coupon: coupon.clone(), user, issued_at, used_at })
}

/// `coupons/mine`.
pub(super) struct OwnIssueBatch(pub(super) RedisClient);

impl BatchOperation for OwnIssueBatch {
    type Entity = CouponId;
    type Request = UserId;
    type Answer = Option<CouponIssue>;

    fn script(&self) -> &'static LuaScript {
        &scripts::COUPONS_MINE
    }

    async fn call(
        &self,
        coupon: &CouponId,
        users: &[UserId],
    ) -> Result<Vec<Option<CouponIssue>>, Error> {
        let mut args = ScriptArgs::new();
        args.each(users.iter().map(|user| user.as_bytes()));
        let place = KeyScope::coupon(self.0.keys(), coupon);
        let words = self.0.call(self.script(), place, args).await?.words()?;
        let one = |(reply, user): (ScriptReply, &UserId)| {
            let mut words = reply.words()?;
            if words.is_empty() { Ok(None) } else { issue(&mut words, coupon, *user).map(Some) }
        };
        words.rest().zip(users).map(one).collect()
    }
}

/// `coupons/counts`. One call answers everybody who asks meanwhile.
pub(super) struct CouponCountsBatch(pub(super) RedisClient);

impl BatchOperation for CouponCountsBatch {
    type Entity = CouponId;
    type Request = ();
    type Answer = CouponCounts;

    fn script(&self) -> &'static LuaScript {
        &scripts::COUPONS_COUNTS
    }

    async fn call(&self, coupon: &CouponId, asked: &[()]) -> Result<Vec<CouponCounts>, Error> {
        let place = KeyScope::coupon(self.0.keys(), coupon);
        let counts =
            read_counts(&mut self.0.call(self.script(), place, ScriptArgs::new()).await?.words()?)?;
        Ok(vec![counts; asked.len()])
    }
}

/// [`CouponCountsBatch`] at once, beside the requests.
pub(super) async fn counts(redis: &RedisClient, coupon: &CouponId) -> Result<CouponCounts, Error> {
    let mut one = CouponCountsBatch(redis.clone()).call(coupon, &[()]).await?;
    one.pop().ok_or_else(|| Error::Protocol("no counts".into()))
}

fn read_counts(words: &mut ReplyReader) -> Result<CouponCounts, Error> {
    Ok(CouponCounts {
        now: words.int()?,
        issued: words.count()?,
        edition: words.text()?,
        version: words.count()?,
        ends_at: words.int()?,
        sold_out: words.int()? == 1,
    })
}

/// Some of the users who have a coupon.
pub(super) struct WinnersPage {
    pub(super) counts: CouponCounts,
    /// Where to read on; `None` at the end.
    pub(super) next: Option<String>,
    pub(super) users: Vec<UserId>,
}

/// `coupons/winners`. `cursor` is "0" at first; a page has about `many` users, of whom some may come twice.
pub(super) async fn winners(
    redis: &RedisClient,
    coupon: &CouponId,
    cursor: &str,
    many: u32,
) -> Result<WinnersPage, Error> {
    let mut args = ScriptArgs::new();
    args.text(cursor).int(many.into());
    let place = KeyScope::coupon(redis.keys(), coupon);
    let mut words = redis.call(&scripts::COUPONS_WINNERS, place, args).await?.words()?;
    let counts = read_counts(&mut words)?;
    let next = words.text()?;
    let user = |reply: ScriptReply| {
        UserId::from_slice(&reply.bytes()?).ok_or_else(|| Error::Protocol("wanted a user".into()))
    };
    let users = words.rest().map(user).collect::<Result<_, _>>()?;
    Ok(WinnersPage { counts, next: (next != "0").then_some(next), users })
}

/// What came of laying settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CouponPublishOutcome {
    /// They are laid. If the coupon was sold out, instances may take it for that for so many milliseconds, and a raised quota opens then.
    Done { known_in_ms: u64 },
    /// So many are issued, more than the quota. Nothing was changed.
    InUse { issued: u64 },
}

/// `coupons/lay`. `hold_ms` is for how long a quota that is raised while the coupon is sold out stays shut.
pub(super) async fn lay(
    redis: &RedisClient,
    coupon: &Coupon,
    hold_ms: i64,
) -> Result<CouponPublishOutcome, Error> {
    let mut args = ScriptArgs::new();
    args.text(&coupon.version.to_string()).text(&format!("{:016x}", rand::random::<u64>()));
    args.text(&coupon.total_quantity.map(|total| total.to_string()).unwrap_or_default());
    args.int(coupon.issue_starts_at.timestamp_millis())
        .int(coupon.issue_ends_at.timestamp_millis());
    args.int(coupon.discount_amount.get()).int(coupon.min_available_amount.get()).int(hold_ms);
    let place = KeyScope::coupon(redis.keys(), &coupon.id);
    let mut words = redis.call(&scripts::COUPONS_LAY, place, args).await?.words()?;
    let (state, issued, known_in_ms) = (words.int()?, words.count()?, words.count()?);
    Ok(if state == 1 {
        CouponPublishOutcome::Done { known_in_ms }
    } else {
        CouponPublishOutcome::InUse { issued }
    })
}

/// `coupons/tidy`. Gives how many tombstones were dropped.
pub(super) async fn tidy(redis: &RedisClient, partition: Partition) -> Result<u64, Error> {
    let mut args = ScriptArgs::new();
    args.int(500);
    let dropped =
        redis.call(&scripts::COUPONS_TIDY, KeyScope::partition(partition), args).await?.int()?;
    Ok(u64::try_from(dropped).unwrap_or_default())
}

/// `coupons/take`.
pub(super) async fn take(
    redis: &RedisClient,
    used: &CouponRedemption,
    amount: Money,
) -> Result<RedemptionOutcome, Error> {
    let mut args = attempt(ScriptArgs::new(), used);
    args.int(amount.get());
    let place = KeyScope::coupon(redis.keys(), &used.coupon);
    let mut words =
        redis.call(&scripts::COUPONS_TAKE, place, args).await?.words()?.word()?.words()?;
    Ok(match words.int()? {
        1 => RedemptionOutcome::Done(money(&mut words)?),
        2 => RedemptionOutcome::NotApplicable,
        _ => RedemptionOutcome::Tombstone,
    })
}

fn money(words: &mut ReplyReader) -> Result<Money, Error> {
    let minor = words.int()?;
    Money::new(minor).ok_or_else(|| Error::Protocol(format!("{minor} is not an amount")))
}

/// `coupons/settle`. Says whether the issue was the user's and not another payment's.
pub(super) async fn settle(
    redis: &RedisClient,
    used: &CouponRedemption,
    discount: Money,
) -> Result<bool, Error> {
    let mut args = ScriptArgs::new();
    args.text(used.coupon.as_str());
    let mut args = attempt(args, used);
    args.int(discount.get());
    let place = KeyScope::coupon(redis.keys(), &used.coupon);
    Ok(redis.call(&scripts::COUPONS_SETTLE, place, args).await?.words()?.int()? != 3)
}

/// `coupons/give_back`. Says whether this call gave it back.
pub(super) async fn give_back(redis: &RedisClient, used: &CouponRedemption) -> Result<bool, Error> {
    let mut args = ScriptArgs::new();
    args.text(used.coupon.as_str());
    let place = KeyScope::coupon(redis.keys(), &used.coupon);
    Ok(redis.call(&scripts::COUPONS_GIVE_BACK, place, attempt(args, used)).await?.words()?.int()?
        == 1)
}

fn attempt(mut args: ScriptArgs, used: &CouponRedemption) -> ScriptArgs {
    args.bytes(used.user.as_bytes()).bytes(used.issue.as_bytes()).bytes(used.payment.as_bytes());
    args.int(used.attempt.into());
    args
}
