//! Calls of the scripts in `lua/coupons/`, one function or batch for each.

use super::coupon::{Coupon, CouponCounts, CouponIssue, CouponRedemption, RedemptionOutcome};
use crate::coupon_terms::CouponTerms;
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

/// The most tombstones that one call deletes, as `lua/coupons/purge_expired.lua` allows.
const MAX_PURGED_PER_CALL: i64 = 500;

#[derive(Debug)]
pub(super) enum IssueOutcome {
    /// The user has the coupon. `is_new` when this call issued it.
    Issued {
        issue: CouponIssue,
        is_new: bool,
    },
    SoldOut,
    NotStarted,
    Ended,
}

/// A user who asks for a coupon, and the id of the new issue.
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
        let (now, terms) = (reply.int()?, read_terms(&reply.text()?)?);
        reply
            .rest()
            .zip(requests)
            .map(|(word, request)| issue_outcome(word, entity, request, (now, terms)))
            .collect()
    }
}

fn issue_outcome(
    reply: ScriptReply,
    coupon: &CouponId,
    request: &IssueRequest,
    (now, terms): (i64, CouponTerms),
) -> Result<IssueOutcome, Error> {
    // A code without values is a plain number, a code with values starts a list.
    let (code, mut words) = match reply {
        ScriptReply::List(_) => {
            let mut words = reply.words()?;
            (words.code()?, Some(words))
        }
        code => (code.code()?, None),
    };
    Ok(match code {
        CouponsIssueCode::Issued => IssueOutcome::Issued {
            issue: CouponIssue {
                id: request.issue,
                coupon: coupon.clone(),
                user: request.user,
                terms,
                issued_at: now,
                used_at: None,
            },
            is_new: true,
        },
        CouponsIssueCode::Known => {
            let words =
                words.as_mut().ok_or_else(|| Error::Protocol("expected an issue".into()))?;
            IssueOutcome::Issued { issue: read_issue(words, coupon, request.user)?, is_new: false }
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
        .ok_or_else(|| Error::Protocol("expected the id of an issue".into()))?;
    let (issued_at, terms) = (words.int()?, read_terms(&words.text()?)?);
    let used_at = words.text()?.parse().ok();
    Ok(CouponIssue { id, coupon: coupon.clone(), user, terms, issued_at, used_at })
}

fn read_terms(text: &str) -> Result<CouponTerms, Error> {
    text.parse().map_err(|error| Error::Protocol(format!("{text:?} is {error}")))
}

/// `coupons/read_issues`: the issue of each user, if any.
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
        reply: ReplyReader,
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

/// `coupons/counts`. One call answers all waiting requests.
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

/// `coupons/counts`, without waiting in the batch of the requests.
pub(super) async fn counts(redis: &RedisClient, coupon: &CouponId) -> Result<CouponCounts, Error> {
    let mut one = ScriptOperation::new(redis, CouponCountsBatch).call(coupon, &[()]).await?;
    one.pop().ok_or_else(|| Error::Protocol("expected counts".into()))
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

/// A part of the users who have a coupon.
pub(super) struct WinnersPage {
    pub(super) counts: CouponCounts,
    /// The cursor of the next part. `None` at the end.
    pub(super) next: Option<String>,
    pub(super) users: Vec<UserId>,
}

/// `coupons/scan_holders`. The first `cursor` is "0". A part has about `count` users; a user may
/// appear twice.
pub(super) async fn scan_holders(
    redis: &RedisClient,
    coupon: &CouponId,
    cursor: &str,
    count: u32,
) -> Result<WinnersPage, Error> {
    let mut args = ScriptArgs::new();
    args.text(cursor).int(count.into());
    let scope = KeyScope::coupon(redis.keys(), coupon);
    let mut words = redis.call(&scripts::COUPONS_SCAN_HOLDERS, scope, args).await?.words()?;
    let counts = read_counts(&mut words)?;
    let next = words.text()?;
    let user = |reply: ScriptReply| {
        UserId::from_slice(&reply.bytes()?).ok_or_else(|| Error::Protocol("expected a user".into()))
    };
    let users = words.rest().map(user).collect::<Result<_, _>>()?;
    Ok(WinnersPage { counts, next: (next != "0").then_some(next), users })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CouponPublishOutcome {
    /// Other instances may answer "sold out" from memory for this time, after which a raised quota
    /// takes effect. 0 unless the coupon was sold out.
    Published { effective_in_ms: u64 },
    /// More are issued than the quota. Nothing was changed.
    InUse { issued: u64 },
}

/// `coupons/publish`. `delay_ms` is the time after which a raised quota of a sold-out coupon takes
/// effect.
pub(super) async fn publish(
    redis: &RedisClient,
    coupon: &Coupon,
    delay_ms: i64,
) -> Result<CouponPublishOutcome, Error> {
    let mut args = ScriptArgs::new();
    args.text(&coupon.version.to_string()).text(&format!("{:016x}", rand::random::<u64>()));
    args.text(&coupon.total_quantity.map(|total| total.to_string()).unwrap_or_default());
    args.int(coupon.issue_starts_at.timestamp_millis())
        .int(coupon.last_issue_before().timestamp_millis());
    args.text(&coupon.discount.to_string());
    args.optional_int(coupon.valid_seconds.map(i64::from));
    args.optional_int(coupon.valid_until.map(|until| until.timestamp_millis())).int(delay_ms);
    let scope = KeyScope::coupon(redis.keys(), &coupon.id);
    let mut words = redis.call(&scripts::COUPONS_PUBLISH, scope, args).await?.words()?;
    let (code, issued, effective_in_ms) = (words.code()?, words.count()?, words.count()?);
    Ok(match code {
        CouponsPublishCode::Published => CouponPublishOutcome::Published { effective_in_ms },
        CouponsPublishCode::InUse => CouponPublishOutcome::InUse { issued },
    })
}

/// `coupons/withdraw`. Returns at most `limit` issues that are in the way.
pub(super) async fn withdraw(
    redis: &RedisClient,
    id: &CouponId,
    limit: usize,
) -> Result<Vec<IssueId>, Error> {
    let mut args = ScriptArgs::new();
    args.int(i64::try_from(limit).unwrap_or(i64::MAX));
    let scope = KeyScope::coupon(redis.keys(), id);
    let issues = redis.call(&scripts::COUPONS_WITHDRAW, scope, args).await?.words()?;
    let read = |issue: ScriptReply| {
        let id = IssueId::from_slice(&issue.bytes()?);
        id.ok_or_else(|| Error::Protocol("not an issue".to_owned()))
    };
    issues.rest().map(read).collect()
}

/// `coupons/purge_expired`. Returns the number of deleted tombstones, at most
/// [`MAX_PURGED_PER_CALL`].
pub(super) async fn purge_expired(redis: &RedisClient, partition: Partition) -> Result<u64, Error> {
    let mut args = ScriptArgs::new();
    args.int(MAX_PURGED_PER_CALL);
    let dropped = redis
        .call(&scripts::COUPONS_PURGE_EXPIRED, KeyScope::partition(partition), args)
        .await?
        .int()?;
    Ok(u64::try_from(dropped).unwrap_or_default())
}

/// `coupons/reserve`.
pub(super) async fn reserve(
    redis: &RedisClient,
    used: &CouponRedemption,
    amount: Money,
) -> Result<RedemptionOutcome, Error> {
    let mut args = attempt(ScriptArgs::new(), used);
    args.int(amount.get());
    let scope = KeyScope::coupon(redis.keys(), &used.coupon);
    let mut words =
        redis.call(&scripts::COUPONS_RESERVE, scope, args).await?.words()?.word()?.words()?;
    Ok(match words.code()? {
        CouponsReserveCode::Reserved => RedemptionOutcome::Reserved(money(&mut words)?),
        CouponsReserveCode::NotApplicable => RedemptionOutcome::NotApplicable,
        CouponsReserveCode::Expired => RedemptionOutcome::Expired,
        CouponsReserveCode::Tombstone => RedemptionOutcome::Tombstone,
    })
}

fn money(words: &mut ReplyReader) -> Result<Money, Error> {
    let minor = words.int()?;
    Money::new(minor).ok_or_else(|| Error::Protocol(format!("{minor} is not an amount")))
}

/// `coupons/redeem`. Returns false when the issue belongs to another user or payment.
pub(super) async fn redeem(
    redis: &RedisClient,
    used: &CouponRedemption,
    discount: Money,
) -> Result<bool, Error> {
    let mut args = ScriptArgs::new();
    args.text(used.coupon.as_str());
    let mut args = attempt(args, used);
    args.int(discount.get());
    let scope = KeyScope::coupon(redis.keys(), &used.coupon);
    let code = redis.call(&scripts::COUPONS_REDEEM, scope, args).await?.words()?.code()?;
    Ok(match code {
        CouponsRedeemCode::Used | CouponsRedeemCode::GivenBack => true,
        CouponsRedeemCode::NotTheirs => false,
    })
}

/// `coupons/return_issue`. Returns whether this call returned it.
pub(super) async fn return_issue(
    redis: &RedisClient,
    used: &CouponRedemption,
) -> Result<bool, Error> {
    let mut args = ScriptArgs::new();
    args.text(used.coupon.as_str());
    let scope = KeyScope::coupon(redis.keys(), &used.coupon);
    let mut reply =
        redis.call(&scripts::COUPONS_RETURN_ISSUE, scope, attempt(args, used)).await?.words()?;
    Ok(reply.code::<CouponsReturnIssueCode>()? == CouponsReturnIssueCode::GivenBack)
}

fn attempt(mut args: ScriptArgs, used: &CouponRedemption) -> ScriptArgs {
    args.bytes(used.user.as_bytes()).bytes(used.issue.as_bytes()).bytes(used.payment.as_bytes());
    args.int(used.attempt.into());
    args
}
