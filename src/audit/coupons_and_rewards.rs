//! Coupons, rewards and facts of users: the same in both stores, within the quota, one per user.

use std::collections::BTreeMap;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::Value;
use sqlx::QueryBuilder;
use uuid::Uuid;

use super::money::{parse_user, user_fields, user_uuids};
use super::{AuditContext, CheckTally, push_values};
use crate::ids::{ClaimId, CouponId, PaymentId, UserId};
use crate::store_error::StoreError;

/// The record of a redemption in Redis.
#[derive(Deserialize)]
struct AuditedRedemption {
    payment: PaymentId,
    #[serde(default)]
    used_at: Option<i64>,
}

pub(super) async fn check_coupons(context: &AuditContext<'_>) -> Result<CheckTally, StoreError> {
    let mut tally = CheckTally::new(
        "coupons",
        "within the quota, one issue per user, redeemed by one confirmed payment, the same in both \
         stores",
    );
    for (coupon, total) in &context.coupons {
        let partition = context.redis.keys().partition(coupon.slot());
        let name = format!("c:{coupon}:issues");
        let inspect =
            |chunk: Vec<UserId>| async move { inspect_issues(context, coupon, &chunk).await };
        context
            .walk_hash(&mut tally, (partition, &name), |field| UserId::from_slice(field), &inspect)
            .await?;
        let (mut after, mut rows) = (Uuid::nil(), 0);
        loop {
            let page: Vec<Uuid> = sqlx::query_scalar(
                "SELECT user_id FROM coupon_issues WHERE coupon_id = ? AND user_id > ? ORDER BY \
                 user_id LIMIT 500",
            )
            .bind(coupon.as_str())
            .bind(after)
            .fetch_all(context.mysql)
            .await?;
            let Some(last) = page.last() else { break };
            after = *last;
            rows += page.len();
            context
                .inspect(&mut tally, page.into_iter().map(UserId::from).collect(), &inspect)
                .await?;
        }
        tally.count_mysql(rows);
        // A quota can't be set below the number of issues, so more issues than the quota are always
        // a fault.
        let here = context.redis.hash_len(partition, &name).await?;
        let issued = here.max(rows as u64);
        if let Some(total) =
            total.filter(|total| i64::try_from(issued).unwrap_or(i64::MAX) > *total)
        {
            tally
                .add_faults(vec![format!("{coupon}: {issued} issues exceed the quota of {total}")]);
        }
    }
    Ok(tally)
}

/// An issue in MySQL.
#[derive(sqlx::FromRow)]
struct AuditedIssue {
    user_id: Uuid,
    id: Uuid,
    issued_at: DateTime<Utc>,
    /// As in Redis, without the end of the validity.
    discount: String,
    valid_until: Option<DateTime<Utc>>,
    is_used: bool,
    payment_id: Option<Uuid>,
    /// Status and issue of that payment.
    status: Option<String>,
    coupon_issue_id: Option<Uuid>,
}

impl AuditedIssue {
    /// What follows the id in Redis.
    fn text(&self) -> String {
        let until = self.valid_until.map(|until| until.timestamp_millis().to_string());
        let issued_at = self.issued_at.timestamp_millis();
        format!("{issued_at}:{}:{}", self.discount, until.unwrap_or_default())
    }
}

async fn inspect_issues(
    context: &AuditContext<'_>,
    coupon: &CouponId,
    users: &[UserId],
) -> Result<Vec<(UserId, String)>, StoreError> {
    let partition = context.redis.keys().partition(coupon.slot());
    let fields: Vec<Bytes> =
        users.iter().map(|user| Bytes::copy_from_slice(user.as_bytes())).collect();
    let issues =
        context.redis.hash_fields(partition, &format!("c:{coupon}:issues"), &fields).await?;
    let here: Vec<Option<(Uuid, String)>> = issues
        .iter()
        .map(|issue| {
            let (id, text) = issue.as_ref()?.split_at_checked(16)?;
            Some((Uuid::from_slice(id).ok()?, String::from_utf8_lossy(text).into_owned()))
        })
        .collect();
    let field_of = |issue: &Option<(Uuid, String)>| {
        let id = issue.as_ref().map(|issue| issue.0).unwrap_or_default();
        Bytes::copy_from_slice(id.as_bytes())
    };
    let fields: Vec<Bytes> = here.iter().map(field_of).collect();
    let uses = context.redis.hash_fields(partition, &format!("c:{coupon}:uses"), &fields).await?;
    let mut query = QueryBuilder::new(
        "SELECT i.user_id, i.id, i.issued_at, CONCAT(i.discount_kind, ':', \
         COALESCE(IF(i.discount_kind = 'percent', i.discount_percent, i.discount_amount), 0), ':', \
         COALESCE(i.discount_limit, ''), ':', i.min_available_amount) AS discount, i.valid_until, \
         i.used_at IS NOT NULL AS is_used, i.payment_id, p.status, p.coupon_issue_id \
         FROM coupon_issues i \
         LEFT JOIN payments p ON p.id = i.payment_id WHERE i.coupon_id = ",
    );
    query.push_bind(coupon.as_str()).push(" AND i.user_id IN (");
    push_values(query.separated(", "), &user_uuids(users));
    let rows: Vec<AuditedIssue> =
        query.push(")").build_query_as().persistent(false).fetch_all(context.mysql).await?;
    let rows: BTreeMap<Uuid, AuditedIssue> =
        rows.into_iter().map(|row| (row.user_id, row)).collect();
    let mut faults = Vec::new();
    for ((user, here), taken) in users.iter().zip(here).zip(uses) {
        let row = rows.get(&user.uuid());
        let mut wrong =
            |text: String| faults.push((*user, format!("the {coupon} of {user}: {text}")));
        let in_mysql = row.map(|row| (row.id, row.text()));
        if here != in_mysql {
            wrong(format!("issue {here:?} in Redis, {in_mysql:?} in MySQL"));
        }
        let Some(row) = row else { continue };
        let taken =
            taken.and_then(|packed| rmp_serde::from_slice::<AuditedRedemption>(&packed).ok());
        let used_here =
            taken.filter(|taken| taken.used_at.is_some()).map(|taken| taken.payment.uuid());
        if used_here != row.payment_id.filter(|_| row.is_used) {
            let by = row.payment_id;
            wrong(format!("redeemed by {used_here:?} in Redis, by {by:?} in MySQL"));
        }
        let (status, issue) = (row.status.as_deref(), row.coupon_issue_id);
        if row.is_used && (status != Some("confirmed") || issue != Some(row.id)) {
            wrong(format!("redeemed by a payment that is {status:?} and has the issue {issue:?}"));
        }
    }
    Ok(faults)
}

/// A claim in Redis that a refund can revoke.
#[derive(Deserialize)]
struct AuditedRevocable {
    claim: ClaimId,
    reward: String,
}

/// Every granted reward: once per user, the same in both stores.
pub(super) async fn check_rewards(context: &AuditContext<'_>) -> Result<CheckTally, StoreError> {
    let mut tally = CheckTally::new(
        "rewards",
        "one granted claim per user and reward, revocable or not, the same in both stores",
    );
    let inspect =
        |chunk: Vec<(UserId, String)>| async move { inspect_claims(context, &chunk).await };
    for partition in context.partitions() {
        let claim = |field: &Bytes| {
            let (user, code) = field.split_at_checked(16)?;
            Some((parse_user(context, partition, user)?, String::from_utf8(code.to_vec()).ok()?))
        };
        context.walk_hash(&mut tally, (partition, "claims"), claim, &inspect).await?;
    }
    let mut after = Uuid::nil();
    loop {
        let page: Vec<(Uuid, Uuid, String, bool)> = sqlx::query_as(
            "SELECT id, user_id, code, once IS NOT NULL FROM reward_claims WHERE id > ? ORDER BY \
             id LIMIT 500",
        )
        .bind(after)
        .fetch_all(context.mysql)
        .await?;
        let Some(last) = page.last() else { return Ok(tally) };
        after = last.0;
        let granted: Vec<_> =
            page.into_iter().filter(|row| row.3).map(|row| (UserId::from(row.1), row.2)).collect();
        tally.count_mysql(granted.len());
        context.inspect(&mut tally, granted, &inspect).await?;
    }
}

async fn inspect_claims(
    context: &AuditContext<'_>,
    claims: &[(UserId, String)],
) -> Result<Vec<((UserId, String), String)>, StoreError> {
    let field_of = |(user, code): &(UserId, String)| {
        let field = [user.as_bytes().as_slice(), code.as_bytes()].concat();
        (context.redis.keys().partition(user.slot()), Bytes::from(field))
    };
    let here = context.fields("claims", &claims.iter().map(field_of).collect::<Vec<_>>()).await?;
    let mut query = QueryBuilder::new(
        "SELECT user_id, code, id, status = 'success' AND points IS NOT NULL FROM reward_claims \
         WHERE once = 1 AND (code, user_id) IN (",
    );
    let mut pairs = query.separated(", ");
    for (user, code) in claims {
        pairs.push("(").push_bind_unseparated(code.clone());
        pairs.push_unseparated(", ").push_bind_unseparated(user.uuid()).push_unseparated(")");
    }
    let rows: Vec<(Uuid, String, Uuid, bool)> =
        query.push(")").build_query_as().persistent(false).fetch_all(context.mysql).await?;
    let users: Vec<UserId> = claims.iter().map(|claim| claim.0).collect();
    let revocable = context.fields("revocable", &user_fields(context, &users)).await?;
    let mut faults = Vec::new();
    for ((claim, here), revocable) in claims.iter().zip(here).zip(revocable) {
        let mut wrong = |what: &str, here: Option<Uuid>, row: Option<Uuid>| {
            let (user, code) = claim;
            let text = format!("the {code} of {user}: {what} {here:?} in Redis, {row:?} in MySQL");
            faults.push((claim.clone(), text));
        };
        let here = here.and_then(|value| Uuid::from_slice(value.get(..16)?).ok());
        let row = rows.iter().find(|row| row.0 == claim.0.uuid() && row.1 == claim.1);
        let (granted, in_mysql) = (row.map(|row| row.2), row.filter(|row| row.3).map(|row| row.2));
        if here != granted {
            wrong("claim", here, granted);
        }
        let of_user: Vec<AuditedRevocable> =
            revocable.and_then(|packed| rmp_serde::from_slice(&packed).ok()).unwrap_or_default();
        let in_redis = of_user.iter().find(|it| it.reward == claim.1).map(|it| it.claim.uuid());
        if in_redis != in_mysql {
            wrong("revocable claim", in_redis, in_mysql);
        }
    }
    Ok(faults)
}

/// The facts of users, which operators set.
pub(super) async fn check_facts(context: &AuditContext<'_>) -> Result<CheckTally, StoreError> {
    let mut tally = CheckTally::new("facts", "the same in both stores");
    let inspect = |chunk: Vec<UserId>| async move { inspect_facts(context, &chunk).await };
    for partition in context.partitions() {
        context
            .walk_hash(
                &mut tally,
                (partition, "facts"),
                |field| parse_user(context, partition, field),
                &inspect,
            )
            .await?;
    }
    let select = "SELECT user_id FROM user_facts WHERE user_id > ? ORDER BY user_id LIMIT 500";
    context.walk_table(&mut tally, select, &inspect).await?;
    Ok(tally)
}

async fn inspect_facts(
    context: &AuditContext<'_>,
    users: &[UserId],
) -> Result<Vec<(UserId, String)>, StoreError> {
    let here = context.fields("facts", &user_fields(context, users)).await?;
    let mut query =
        QueryBuilder::new("SELECT user_id, CAST(facts AS CHAR) FROM user_facts WHERE user_id IN (");
    push_values(query.separated(", "), &user_uuids(users));
    let rows: Vec<(Uuid, String)> =
        query.push(")").build_query_as().persistent(false).fetch_all(context.mysql).await?;
    // Compared as values, because the servers format JSON differently. An empty object equals no
    // facts.
    let read = |text: &[u8]| {
        serde_json::from_slice::<Value>(text).ok().filter(|it| *it != serde_json::json!({}))
    };
    let mut faults = Vec::new();
    for (user, here) in users.iter().zip(here) {
        let here = here.as_deref().and_then(read);
        let row =
            rows.iter().find(|row| row.0 == user.uuid()).and_then(|row| read(row.1.as_bytes()));
        if here != row {
            faults
                .push((*user, format!("the facts of {user}: {here:?} in Redis, {row:?} in MySQL")));
        }
    }
    Ok(faults)
}
