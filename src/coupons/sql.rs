//! Statements on `coupons`, and queries of `coupon_issues`, which the outbox writer fills.

use chrono::{DateTime, Utc};
use sqlx::{FromRow, MySqlConnection, MySqlPool};
use uuid::Uuid;

use super::coupon::{Coupon, CouponIssue};
use crate::coupon_terms::{CouponDiscount, CouponTerms, DiscountKind};
use crate::http::page::{PageCursor, PageLimit};
use crate::ids::{CouponId, IssueId, UserId};
use crate::money::Money;
use crate::mysql;
use crate::time::datetime;

#[derive(FromRow)]
struct Row {
    id: String,
    version: u64,
    title: String,
    total_quantity: Option<u64>,
    #[sqlx(flatten)]
    discount: DiscountColumns,
    valid_seconds: Option<u32>,
    valid_until: Option<DateTime<Utc>>,
    issue_starts_at: DateTime<Utc>,
    issue_ends_at: DateTime<Utc>,
}

/// The columns that coupons and their issues have in common.
#[derive(FromRow)]
struct DiscountColumns {
    discount_kind: String,
    discount_amount: Option<i64>,
    discount_percent: Option<u32>,
    discount_limit: Option<i64>,
    min_available_amount: i64,
}

/// All coupons, sorted by id.
pub(super) async fn load_all(
    connection: &mut MySqlConnection,
) -> Result<Vec<Coupon>, mysql::Error> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT id, version, title, total_quantity, discount_kind, discount_amount, \
         discount_percent, discount_limit, min_available_amount, valid_seconds, valid_until, \
         issue_starts_at, issue_ends_at FROM coupons ORDER BY id",
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().filter_map(read).collect())
}

pub(super) async fn load(
    connection: &mut MySqlConnection,
    id: &CouponId,
) -> Result<Option<Coupon>, mysql::Error> {
    let row: Option<Row> = sqlx::query_as(
        "SELECT id, version, title, total_quantity, discount_kind, discount_amount, \
         discount_percent, discount_limit, min_available_amount, valid_seconds, valid_until, \
         issue_starts_at, issue_ends_at FROM coupons WHERE id = ?",
    )
    .bind(id.as_str())
    .fetch_optional(connection)
    .await?;
    Ok(row.and_then(read))
}

/// Inserts or updates a coupon.
pub(super) async fn save(
    connection: &mut MySqlConnection,
    coupon: &Coupon,
) -> Result<(), mysql::Error> {
    let discount = coupon.discount;
    sqlx::query(
        "INSERT INTO coupons (id, version, title, total_quantity, discount_kind, discount_amount, \
         discount_percent, discount_limit, min_available_amount, valid_seconds, valid_until, \
         issue_starts_at, issue_ends_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
         ON DUPLICATE KEY UPDATE version = VALUES(version), title = VALUES(title), \
         total_quantity = VALUES(total_quantity), discount_kind = VALUES(discount_kind), \
         discount_amount = VALUES(discount_amount), discount_percent = VALUES(discount_percent), \
         discount_limit = VALUES(discount_limit), \
         min_available_amount = VALUES(min_available_amount), \
         valid_seconds = VALUES(valid_seconds), valid_until = VALUES(valid_until), \
         issue_starts_at = VALUES(issue_starts_at), issue_ends_at = VALUES(issue_ends_at)",
    )
    .bind(coupon.id.as_str())
    .bind(coupon.version)
    .bind(&coupon.title)
    .bind(coupon.total_quantity)
    .bind(discount.kind.as_str())
    .bind(discount.amount.unwrap_or_default().get())
    .bind(discount.percent)
    .bind(discount.limit.map(Money::get))
    .bind(discount.min_available_amount.get())
    .bind(coupon.valid_seconds)
    .bind(coupon.valid_until.map(datetime))
    .bind(datetime(coupon.issue_starts_at))
    .bind(datetime(coupon.issue_ends_at))
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn delete(
    connection: &mut MySqlConnection,
    id: &CouponId,
) -> Result<(), mysql::Error> {
    let delete = sqlx::query("DELETE FROM coupons WHERE id = ?").bind(id.as_str());
    delete.execute(connection).await?;
    Ok(())
}

/// The oldest issues of a coupon, at most `limit`.
pub(super) async fn first_issues(
    connection: &mut MySqlConnection,
    coupon: &CouponId,
    limit: usize,
) -> Result<Vec<IssueId>, mysql::Error> {
    let select = "SELECT id FROM coupon_issues WHERE coupon_id = ? ORDER BY issued_at, id LIMIT ?";
    let limit = u64::try_from(limit).unwrap_or(u64::MAX);
    let ids: Vec<Uuid> =
        sqlx::query_scalar(select).bind(coupon.as_str()).bind(limit).fetch_all(connection).await?;
    Ok(ids.into_iter().map(IssueId::from).collect())
}

#[derive(FromRow)]
struct CouponIssueRow {
    id: Uuid,
    coupon_id: String,
    user_id: Uuid,
    #[sqlx(flatten)]
    discount: DiscountColumns,
    valid_until: Option<DateTime<Utc>>,
    issued_at: DateTime<Utc>,
    used_at: Option<DateTime<Utc>>,
}

/// The issues of a user before a cursor, newest first: one more than the page has, to show whether
/// another page follows.
pub(super) async fn issues_of_user(
    pool: &MySqlPool,
    user: UserId,
    before: PageCursor,
    limit: PageLimit,
) -> Result<Vec<CouponIssue>, mysql::Error> {
    // The index serves the first comparison. The second breaks ties within one millisecond.
    let rows = sqlx::query_as(
        "SELECT id, coupon_id, user_id, discount_kind, discount_amount, discount_percent, \
         discount_limit, min_available_amount, valid_until, issued_at, used_at FROM coupon_issues \
         WHERE user_id = ? AND issued_at <= ? AND (issued_at < ? OR id < ?) \
         ORDER BY issued_at DESC, id DESC LIMIT ?",
    );
    page(rows.bind(user.uuid()), before, limit, pool).await
}

/// The issues of a coupon before a cursor, as [`issues_of_user`].
pub(super) async fn issues_of_coupon(
    pool: &MySqlPool,
    coupon: &CouponId,
    before: PageCursor,
    limit: PageLimit,
) -> Result<Vec<CouponIssue>, mysql::Error> {
    let rows = sqlx::query_as(
        "SELECT id, coupon_id, user_id, discount_kind, discount_amount, discount_percent, \
         discount_limit, min_available_amount, valid_until, issued_at, used_at FROM coupon_issues \
         WHERE coupon_id = ? AND issued_at <= ? AND (issued_at < ? OR id < ?) \
         ORDER BY issued_at DESC, id DESC LIMIT ?",
    );
    page(rows.bind(coupon.as_str().to_owned()), before, limit, pool).await
}

type CouponIssueRows<'q> =
    sqlx::query::QueryAs<'q, sqlx::MySql, CouponIssueRow, sqlx::mysql::MySqlArguments>;

async fn page(
    rows: CouponIssueRows<'_>,
    before: PageCursor,
    limit: PageLimit,
    pool: &MySqlPool,
) -> Result<Vec<CouponIssue>, mysql::Error> {
    let at = datetime(DateTime::from_timestamp_millis(before.at).unwrap_or_default());
    let one_more = u64::try_from(limit.get() + 1).unwrap_or(u64::MAX);
    let rows = rows.bind(at).bind(at).bind(before.id).bind(one_more).fetch_all(pool).await?;
    Ok(rows.into_iter().filter_map(read_issue).collect())
}

fn read_issue(row: CouponIssueRow) -> Option<CouponIssue> {
    Some(CouponIssue {
        id: row.id.into(),
        coupon: row.coupon_id.parse().ok()?,
        user: row.user_id.into(),
        terms: CouponTerms {
            discount: read_discount(&row.discount)?,
            valid_until: row.valid_until.map(|until| until.timestamp_millis()),
        },
        issued_at: row.issued_at.timestamp_millis(),
        used_at: row.used_at.map(|at| at.timestamp_millis()),
    })
}

fn read(row: Row) -> Option<Coupon> {
    Some(Coupon {
        id: row.id.parse().ok()?,
        version: row.version,
        title: row.title,
        total_quantity: row.total_quantity,
        discount: read_discount(&row.discount)?,
        valid_seconds: row.valid_seconds,
        valid_until: row.valid_until,
        issue_starts_at: row.issue_starts_at,
        issue_ends_at: row.issue_ends_at,
    })
}

fn read_discount(row: &DiscountColumns) -> Option<CouponDiscount> {
    let kind: DiscountKind = row.discount_kind.parse().ok()?;
    let amount = row.discount_amount.filter(|_| kind == DiscountKind::Amount);
    Some(CouponDiscount {
        kind,
        amount: amount.and_then(Money::new),
        percent: row.discount_percent,
        limit: row.discount_limit.and_then(Money::new),
        min_available_amount: Money::new(row.min_available_amount)?,
    })
}
