//! The scripts of coupons, one batch or function each.

use super::coupon::{Coupon, CouponCounts, CouponIssue};
use super::uses::{CouponRedemption, RedemptionOutcome};
use crate::ids::{CouponId, IssueId, UserId};
use crate::money::Money;
use crate::partition::Partition;
use crate::redis::codes::{
    CouponsIssueCode, CouponsPublishCode, CouponsRedeemCode, CouponsReserveCode,
    CouponsReturnIssueCode,
};
use crate::redis::{
    BatchOperation, BatchScript, Error, KeyBuilder, KeyScope, LuaScript, RedisClient, ReplyReader,
    ScriptArgs, ScriptOperation, ScriptReply, scripts,
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

/// A user who asks for a coupon, and the id that the issue gets if the user has none yet.
pub(super) struct IssueRequest {
    user: UserId,
    issue: IssueId,
}

impl IssueRequest {
    pub(super) fn new(coupon: &CouponId, user: UserId) -> Self {
        Self { user, issue: IssueId::new(coupon.slot()) }
    }
}

/// `coupons/issue`.
pub(super) struct IssueBatch;

impl BatchScript for IssueBatch {
    type Entity = CouponId;
    type Request = IssueRequest;
    type Answer = IssueOutcome;

    fn script(&self) -> &'static LuaScript {
        &scripts::COUPONS_ISSUE
    }

    fn scope<'a>(&self, keys: &KeyBuilder, entity: &'a CouponId) -> KeyScope<'a> {
        KeyScope::coupon(keys, entity)
    }

    fn write_args(
        &self,
        entity: &CouponId,
        requests: &[IssueRequest],
        args: &mut ScriptArgs,
    ) -> Result<(), Error> {
        let packed: Vec<[u8; 16]> =
            requests.iter().flat_map(|it| [*it.user.as_bytes(), *it.issue.as_bytes()]).collect();
        args.text(entity.as_str()).bytes(packed.as_flattened());
        Ok(())
    }

    fn read_answers(
        &self,
        entity: &CouponId,
        requests: &[IssueRequest],
        mut reply: ReplyReader,
    ) -> Result<Vec<IssueOutcome>, Error> {
        let now = reply.int()?;
        reply
            .rest()
            .zip(requests)
            .map(|(word, request)| issue_outcome(word, entity, request, now))
            .collect()
    }
}

fn issue_outcome(
    reply: ScriptReply,
    coupon: &CouponId,
    request: &IssueRequest,
    now: i64,
) -> Result<IssueOutcome, Error> {
    // A code that carries nothing comes as a plain number, the others as a list.
    let (code, mut words) = match reply {
        ScriptReply::List(_) => {
            let mut words = reply.words()?;
            (words.code()?, Some(words))
        }
        code => (code.code()?, None),
    };
    Ok(match code {
        CouponsIssueCode::Issued => IssueOutcome::Given {
            issue: CouponIssue {
                id: request.issue,
                coupon: coupon.clone(),
                user: request.user,
                issued_at: now,
                used_at: None,
            },
            fresh: true,
        },
        CouponsIssueCode::Known => {
            let words = words.as_mut().ok_or_else(|| Error::Protocol("no issue".into()))?;
            IssueOutcome::Given { issue: read_issue(words, coupon, request.user)?, fresh: false }
        }
        CouponsIssueCode::SoldOut => IssueOutcome::SoldOut,
        CouponsIssueCode::NotStarted => IssueOutcome::NotStarted,
        CouponsIssueCode::Ended => IssueOutcome::Ended,
    })
}

fn read_issue(
    words: &mut ReplyReader,
    coupon: &CouponId,
    user: UserId,
) -> Result<CouponIssue, Error> {
    let id = IssueId::from_slice(&words.word()?.bytes()?)
        .ok_or_else(|| Error::Protocol("wanted an issue's id".into()))?;
    let issued_at = words.int()?;
    let used_at = words.text()?.parse().ok();
    Ok(CouponIssue { id, coupon: coupon.clone(), user, issued_at, used_at })
}

/// `coupons/read_issues`.
pub(super) struct OwnIssueBatch;

impl BatchScript for OwnIssueBatch {
    type Entity = CouponId;
    type Request = UserId;
    type Answer = Option<CouponIssue>;

    fn script(&self) -> &'static LuaScript {
        &scripts::COUPONS_READ_ISSUES
    }

    fn scope<'a>(&self, keys: &KeyBuilder, entity: &'a CouponId) -> KeyScope<'a> {
        KeyScope::coupon(keys, entity)
    }

    fn write_args(
        &self,
        _: &CouponId,
        requests: &[UserId],
        args: &mut ScriptArgs,
    ) -> Result<(), Error> {
        args.each(requests.iter().map(|user| user.as_bytes()));
        Ok(())
    }

    fn read_answers(
        &self,
        entity: &CouponId,
        requests: &[UserId],
        mut reply: ReplyReader,
    ) -> Result<Vec<Option<CouponIssue>>, Error> {
        let one = |(word, user): (ScriptReply, &UserId)| {
            let mut words = word.words()?;
            if words.is_empty() {
                Ok(None)
            } else {
                read_issue(&mut words, entity, *user).map(Some)
            }
        };
        reply.rest().zip(requests).map(one).collect()
    }
}

/// `coupons/counts`. One call answers everybody who asks meanwhile.
pub(super) struct CouponCountsBatch;

impl BatchScript for CouponCountsBatch {
    type Entity = CouponId;
    type Request = ();
    type Answer = CouponCounts;

    fn script(&self) -> &'static LuaScript {
        &scripts::COUPONS_COUNTS
    }

    fn scope<'a>(&self, keys: &KeyBuilder, entity: &'a CouponId) -> KeyScope<'a> {
        KeyScope::coupon(keys, entity)
    }

    fn write_args(&self, _: &CouponId, _: &[()], _: &mut ScriptArgs) -> Result<(), Error> {
        Ok(())
    }

    fn read_answers(
        &self,
        _: &CouponId,
        requests: &[()],
        mut reply: ReplyReader,
    ) -> Result<Vec<CouponCounts>, Error> {
        let counts = read_counts(&mut reply)?;
        Ok(vec![counts; requests.len()])
    }
}

/// [`CouponCountsBatch`] at once, beside the requests.
pub(super) async fn counts(redis: &RedisClient, coupon: &CouponId) -> Result<CouponCounts, Error> {
    let mut one = ScriptOperation::new(redis, CouponCountsBatch).call(coupon, &[()]).await?;
    one.pop().ok_or_else(|| Error::Protocol("no counts".into()))
}

fn read_counts(words: &mut ReplyReader) -> Result<CouponCounts, Error> {
    Ok(CouponCounts {
        now: words.int()?,
        issued: words.count()?,
        edition: words.text()?,
        version: words.count()?,
        ends_at: words.int()?,
        sold_out: words.flag()?,
    })
}

/// Some of the users who have a coupon.
pub(super) struct WinnersPage {
    pub(super) counts: CouponCounts,
    /// Where to read on; `None` at the end.
    pub(super) next: Option<String>,
    pub(super) users: Vec<UserId>,
}

/// `coupons/scan_holders`. `cursor` is "0" at first; a page has about `many` users, of whom some may come twice.
pub(super) async fn winners(
    redis: &RedisClient,
    coupon: &CouponId,
    cursor: &str,
    many: u32,
) -> Result<WinnersPage, Error> {
    let mut args = ScriptArgs::new();
    args.text(cursor).int(many.into());
    let place = KeyScope::coupon(redis.keys(), coupon);
    let mut words = redis.call(&scripts::COUPONS_SCAN_HOLDERS, place, args).await?.words()?;
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

/// `coupons/publish`. `hold_ms` is for how long a quota that is raised while the coupon is sold out stays shut.
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
    let mut words = redis.call(&scripts::COUPONS_PUBLISH, place, args).await?.words()?;
    let (code, issued, known_in_ms) = (words.code()?, words.count()?, words.count()?);
    Ok(match code {
        CouponsPublishCode::Published => CouponPublishOutcome::Done { known_in_ms },
        CouponsPublishCode::InUse => CouponPublishOutcome::InUse { issued },
    })
}

/// `coupons/purge_expired`. Gives how many tombstones were dropped.
pub(super) async fn tidy(redis: &RedisClient, partition: Partition) -> Result<u64, Error> {
    let mut args = ScriptArgs::new();
    args.int(500);
    let dropped = redis
        .call(&scripts::COUPONS_PURGE_EXPIRED, KeyScope::partition(partition), args)
        .await?
        .int()?;
    Ok(u64::try_from(dropped).unwrap_or_default())
}

/// `coupons/reserve`.
pub(super) async fn take(
    redis: &RedisClient,
    used: &CouponRedemption,
    amount: Money,
) -> Result<RedemptionOutcome, Error> {
    let mut args = attempt(ScriptArgs::new(), used);
    args.int(amount.get());
    let place = KeyScope::coupon(redis.keys(), &used.coupon);
    let mut words =
        redis.call(&scripts::COUPONS_RESERVE, place, args).await?.words()?.word()?.words()?;
    Ok(match words.code()? {
        CouponsReserveCode::Reserved => RedemptionOutcome::Done(money(&mut words)?),
        CouponsReserveCode::NotApplicable => RedemptionOutcome::NotApplicable,
        CouponsReserveCode::Tombstone => RedemptionOutcome::Tombstone,
    })
}

fn money(words: &mut ReplyReader) -> Result<Money, Error> {
    let minor = words.int()?;
    Money::new(minor).ok_or_else(|| Error::Protocol(format!("{minor} is not an amount")))
}

/// `coupons/redeem`. Says whether the issue was the user's and not another payment's.
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
    let code = redis.call(&scripts::COUPONS_REDEEM, place, args).await?.words()?.code()?;
    Ok(match code {
        CouponsRedeemCode::Used | CouponsRedeemCode::GivenBack => true,
        CouponsRedeemCode::NotTheirs => false,
    })
}

/// `coupons/return_issue`. Says whether this call gave it back.
pub(super) async fn give_back(redis: &RedisClient, used: &CouponRedemption) -> Result<bool, Error> {
    let mut args = ScriptArgs::new();
    args.text(used.coupon.as_str());
    let place = KeyScope::coupon(redis.keys(), &used.coupon);
    let mut reply =
        redis.call(&scripts::COUPONS_RETURN_ISSUE, place, attempt(args, used)).await?.words()?;
    Ok(reply.code::<CouponsReturnIssueCode>()? == CouponsReturnIssueCode::GivenBack)
}

fn attempt(mut args: ScriptArgs, used: &CouponRedemption) -> ScriptArgs {
    args.bytes(used.user.as_bytes()).bytes(used.issue.as_bytes()).bytes(used.payment.as_bytes());
    args.int(used.attempt.into());
    args
}
