//! The SQL statements of the writer.
//!
//! To the server a multi-row statement of another length is another prepared statement. So rows are
//! split into chunks of a few fixed sizes: thousands of rows need a handful of round trips, and all
//! statements stay prepared. Upserts use `VALUES(c)` because MariaDB does not know MySQL's row
//! alias.

use chrono::DateTime;
use sqlx::mysql::MySql;
use sqlx::query_builder::Separated;
use sqlx::types::Json;
use sqlx::{MySqlConnection, QueryBuilder};

use super::apply::{FlushBatch, IssueState, LedgerRow, PromotionRow, SeatRow, WalletState};
use super::event::DrawEvent;
use super::event::{CouponRedemptionEvent, ReservationEvent, UserFactsEvent, UserRecordedEvent};
use super::payment_sql;
use crate::coupon_terms::CouponTerms;
use crate::ids::{ClaimId, PaymentId, RequestFingerprint, ReservationId, UserId};
use crate::money::Money;
use crate::mysql::Error;
use crate::mysql::checkpoint::Checkpoint;
use crate::partition::Partition;
use crate::time::datetime;

/// Rows per statement. The widest row binds 19 values, so 1,024 rows stay far below the limit of
/// 65,535.
const CHUNK_SIZES: [usize; 4] = [1024, 128, 16, 1];

/// The values of one row.
pub(super) type RowValues<'a> = Separated<'a, MySql, &'static str>;

/// Locks the checkpoints of the partitions that no other writer has locked, in the order of their
/// ids.
pub(super) async fn lock(
    tx: &mut MySqlConnection,
    partitions: &[Partition],
) -> Result<Vec<Checkpoint>, Error> {
    let Some(last) = partitions.last() else { return Ok(Vec::new()) };
    // Repeating a partition is harmless, so the list is padded to a fixed size.
    let size = CHUNK_SIZES
        .into_iter()
        .rev()
        .find(|size| *size >= partitions.len())
        .unwrap_or(partitions.len());
    let mut select = QueryBuilder::new(
        "SELECT partition_id, n, generation FROM outbox_checkpoints WHERE partition_id IN (",
    );
    let mut list = select.separated(", ");
    for partition in partitions.iter().chain(std::iter::repeat(last)).take(size) {
        list.push_bind(partition.get());
    }
    select.push(") ORDER BY partition_id FOR UPDATE SKIP LOCKED");
    let rows: Vec<(u16, u64, Option<u64>)> = select.build_query_as().fetch_all(tx).await?;
    let known = rows.into_iter().filter_map(|(number, n, epoch)| {
        let partition = partitions.iter().find(|partition| partition.get() == number)?;
        Some(Checkpoint { partition: *partition, n, epoch })
    });
    Ok(known.collect())
}

/// Moves checkpoints that the transaction has locked.
pub(super) async fn advance(
    tx: &mut MySqlConnection,
    through: &[(Partition, u64)],
) -> Result<(), Error> {
    let head = "INSERT INTO outbox_checkpoints (partition_id, n, updated_at) ";
    let tail = " ON DUPLICATE KEY UPDATE n = VALUES(n), updated_at = VALUES(updated_at)";
    insert(tx, head, tail, through, |row, (partition, n)| {
        row.push_bind(partition.get()).push_bind(*n).push("UTC_TIMESTAMP(3)");
    })
    .await
}

/// Applies a batch. Answers how many rows went to each table.
pub(super) async fn write(
    tx: &mut MySqlConnection,
    batch: &FlushBatch,
) -> Result<Vec<(&'static str, usize)>, Error> {
    let reservations: Vec<_> = batch.reservations.values().collect();
    let payments: Vec<_> = batch.payments.values().collect();
    let wallets: Vec<_> = batch.wallets.iter().collect();
    let freed = batch.freed_seats();
    let sold = batch.sold_seats();
    write_reservations(tx, &reservations).await?;
    // Free before sell: a seat may be freed and sold again within the batch.
    free_seats(tx, &freed).await?;
    sell_seats(tx, &sold).await?;
    payment_sql::write_payments(tx, &payments).await?;
    let ended: Vec<_> = batch.ended_waits.iter().collect();
    payment_sql::delete_pending(tx, &ended).await?;
    // After the deletion: a further attempt of a payment may wait.
    let pending: Vec<_> = batch.pending.values().collect();
    payment_sql::write_pending(tx, &pending).await?;
    write_wallets(tx, &wallets).await?;
    write_lines(tx, &batch.ledger_rows).await?;
    write_runs(tx, &batch.promotions).await?;
    write_draws(tx, &batch.draws).await?;
    let uses: Vec<_> = batch.redemptions.values().collect();
    let facts: Vec<_> = batch.facts.values().collect();
    let issues = batch.issues();
    write_issues(tx, &issues).await?;
    // After the issues: a coupon may be issued and redeemed within the batch.
    write_uses(tx, &uses).await?;
    batch.claims.write(tx).await?;
    write_facts(tx, &facts).await?;
    let users: Vec<_> = batch.users.values().collect();
    write_users(tx, &users).await?;
    Ok(vec![
        ("reservations", reservations.len()),
        ("reservation_seats", freed.len() + sold.len()),
        ("payments", payments.len()),
        ("pending_payments", pending.len() + ended.len()),
        ("wallets", wallets.len()),
        ("wallet_entries", batch.ledger_rows.len()),
        ("promotions", batch.promotions.len()),
        ("queue_draws", batch.draws.len()),
        ("coupon_issues", issues.len() + uses.len()),
        ("reward_claims", batch.claims.len()),
        ("user_facts", facts.len()),
        ("users", users.len()),
    ])
}

async fn write_reservations(
    tx: &mut MySqlConnection,
    rows: &[&ReservationEvent],
) -> Result<(), Error> {
    let head = "INSERT INTO reservations (id, user_id, queue_id, concert_id, schedule_id, seats, \
                amount, status, held_until, \
                created_at, updated_at, score, concert_title, starts_at, payment_id, paid, \
                discount, cancellations) ";
    let tail = " ON DUPLICATE KEY UPDATE seats = VALUES(seats), amount = VALUES(amount), status = \
                VALUES(status), \
                held_until = VALUES(held_until), updated_at = VALUES(updated_at), payment_id = \
                VALUES(payment_id), paid = VALUES(paid), discount = VALUES(discount), \
                cancellations = VALUES(cancellations)";
    insert(tx, head, tail, rows, |row, r| {
        row.push_bind(r.id.uuid()).push_bind(r.user.uuid()).push_bind(r.queue.as_str());
        row.push_bind(r.concert.as_str())
            .push_bind(r.schedule.as_str())
            .push_bind(r.detail.as_str());
        row.push_bind(r.amount.get()).push_bind(r.status.as_str()).push_bind(r.held_until);
        row.push_bind(r.created_at).push_bind(r.at).push_bind(r.score);
        row.push_bind(r.title.as_deref()).push_bind(r.starts_at.map(datetime));
        row.push_bind(r.payment.map(PaymentId::uuid)).push_bind(r.paid.map(Money::get));
        row.push_bind(r.discount.map(Money::get)).push_bind(r.cancellations.as_ref().map(Json));
    })
    .await
}

/// Matches the reservation too: a seat that was sold again since belongs to its new owner.
async fn free_seats(tx: &mut MySqlConnection, seats: &[SeatRow<'_>]) -> Result<(), Error> {
    for chunk in chunks(seats) {
        let mut delete = QueryBuilder::new("DELETE FROM reservation_seats WHERE ");
        let mut any = delete.separated(" OR ");
        for seat in chunk {
            any.push("(schedule_id = ").push_bind_unseparated(seat.schedule.as_str());
            any.push_unseparated(" AND seat_number = ").push_bind_unseparated(seat.number);
            any.push_unseparated(" AND reservation_id = ")
                .push_bind_unseparated(seat.reservation.uuid());
            any.push_unseparated(")");
        }
        delete.build().execute(&mut *tx).await?;
    }
    Ok(())
}

/// A plain insert: selling a seat twice must fail the transaction.
async fn sell_seats(tx: &mut MySqlConnection, seats: &[SeatRow<'_>]) -> Result<(), Error> {
    let head = "INSERT INTO reservation_seats (schedule_id, seat_number, reservation_id) ";
    insert(tx, head, "", seats, |row, seat| {
        row.push_bind(seat.schedule.as_str())
            .push_bind(seat.number)
            .push_bind(seat.reservation.uuid());
    })
    .await
}

async fn write_wallets(
    tx: &mut MySqlConnection,
    rows: &[(&UserId, &WalletState)],
) -> Result<(), Error> {
    let head = "INSERT INTO wallets (user_id, slot, balance, updated_at, paid_total, paid_count) ";
    let tail = " ON DUPLICATE KEY UPDATE balance = VALUES(balance), updated_at = \
                VALUES(updated_at), \
                paid_total = paid_total + VALUES(paid_total), paid_count = paid_count + \
                VALUES(paid_count)";
    insert(tx, head, tail, rows, |row, (user, wallet)| {
        row.push_bind(user.uuid()).push_bind(user.slot().get());
        row.push_bind(wallet.balance.get()).push_bind(wallet.at);
        row.push_bind(wallet.paid_total).push_bind(wallet.paid_count);
    })
    .await
}

async fn write_lines(tx: &mut MySqlConnection, lines: &[LedgerRow]) -> Result<(), Error> {
    let head = "INSERT INTO wallet_entries (id, user_id, position, kind, amount, balance, \
                created_at, payment_id, attempt, \
                idempotency_key, fingerprint, reservation_id, claim_id, cancelled_seats, \
                reference, ends_payment) ";
    insert(tx, head, "", lines, |row, LedgerRow { position, entry }| {
        row.push_bind(entry.id.uuid()).push_bind(entry.user.uuid()).push_bind(*position);
        row.push_bind(entry.kind.as_str())
            .push_bind(entry.amount.get())
            .push_bind(entry.balance.get());
        row.push_bind(entry.at)
            .push_bind(entry.payment.map(PaymentId::uuid))
            .push_bind(entry.attempt);
        row.push_bind(entry.key.as_deref()).push_bind(bytes(entry.fingerprint.as_ref()));
        row.push_bind(entry.reservation.map(ReservationId::uuid));
        row.push_bind(entry.claim.map(ClaimId::uuid));
        row.push_bind(entry.cancelled_seats.as_deref()).push_bind(entry.reference.as_deref());
        row.push_bind(entry.ends_payment.unwrap_or(false));
    })
    .await
}

async fn write_runs(tx: &mut MySqlConnection, runs: &[PromotionRow]) -> Result<(), Error> {
    let head = "INSERT INTO promotions (partition_id, n, idx, queue_id, from_score, to_score, \
                count, promoted_at, rate_limit, rate_interval_ms) ";
    insert(tx, head, "", runs, |row, PromotionRow { partition, n, idx, promotion }| {
        row.push_bind(partition.get())
            .push_bind(*n)
            .push_bind(*idx)
            .push_bind(promotion.queue.as_str());
        row.push_bind(promotion.from)
            .push_bind(promotion.to)
            .push_bind(promotion.count)
            .push_bind(promotion.at)
            .push_bind(promotion.limit)
            .push_bind(promotion.interval);
    })
    .await
}

/// A repetition after a loss of Redis does not change what is known.
async fn write_draws(tx: &mut MySqlConnection, draws: &[DrawEvent]) -> Result<(), Error> {
    for draw in draws {
        sqlx::query(
            "UPDATE queue_draws SET entrants = ?, drawn_at = COALESCE(drawn_at, ?) \
             WHERE queue_id = ? AND draw = ? AND entrants IS NULL",
        )
        .bind(draw.entrants)
        .bind(draw.at)
        .bind(draw.queue.as_str())
        .bind(draw.draw)
        .execute(&mut *tx)
        .await?;
    }
    Ok(())
}

/// A plain insert: issuing a coupon twice to one user must fail the transaction.
async fn write_issues(tx: &mut MySqlConnection, rows: &[IssueState<'_>]) -> Result<(), Error> {
    let head = "INSERT INTO coupon_issues (id, coupon_id, user_id, issued_at, discount_kind, \
                discount_amount, discount_percent, discount_limit, min_available_amount, \
                valid_until) ";
    insert(tx, head, "", rows, |row, issue| {
        let CouponTerms { discount, valid_until } = issue.terms;
        row.push_bind(issue.id.uuid()).push_bind(issue.coupon.as_str());
        row.push_bind(issue.user.uuid()).push_bind(issue.issued_at);
        row.push_bind(discount.kind.as_str()).push_bind(discount.amount.map(Money::get));
        row.push_bind(discount.percent).push_bind(discount.limit.map(Money::get));
        row.push_bind(discount.min_available_amount.get());
        row.push_bind(valid_until.and_then(DateTime::from_timestamp_millis).map(datetime));
    })
    .await
}

async fn write_uses(
    tx: &mut MySqlConnection,
    rows: &[&CouponRedemptionEvent],
) -> Result<(), Error> {
    let head =
        "INSERT INTO coupon_issues (id, coupon_id, user_id, issued_at, used_at, payment_id) ";
    let tail =
        " ON DUPLICATE KEY UPDATE used_at = VALUES(used_at), payment_id = VALUES(payment_id)";
    insert(tx, head, tail, rows, |row, u| {
        row.push_bind(u.id.uuid()).push_bind(u.coupon.as_str()).push_bind(u.user.uuid());
        row.push_bind(u.issued_at).push_bind(u.used_at).push_bind(u.payment.map(PaymentId::uuid));
    })
    .await
}

async fn write_facts(tx: &mut MySqlConnection, rows: &[&UserFactsEvent]) -> Result<(), Error> {
    let head = "INSERT INTO user_facts (user_id, slot, facts, updated_at) ";
    let tail = " ON DUPLICATE KEY UPDATE facts = VALUES(facts), updated_at = VALUES(updated_at)";
    insert(tx, head, tail, rows, |row, known| {
        row.push_bind(known.user.uuid()).push_bind(known.user.slot().get());
        row.push_bind(known.facts.as_str()).push_bind(known.at);
    })
    .await
}

/// Each instance records a user, so the row may exist.
async fn write_users(tx: &mut MySqlConnection, rows: &[&UserRecordedEvent]) -> Result<(), Error> {
    let head = "INSERT INTO users (user_id, name, recorded_at) ";
    let tail = " ON DUPLICATE KEY UPDATE user_id = VALUES(user_id)";
    insert(tx, head, tail, rows, |row, recorded| {
        row.push_bind(recorded.user.uuid()).push_bind(recorded.name.to_string());
        row.push_bind(recorded.at);
    })
    .await
}

pub(super) fn bytes(fingerprint: Option<&RequestFingerprint>) -> Option<&[u8]> {
    fingerprint.map(|fingerprint| fingerprint.as_bytes().as_slice())
}

pub(super) async fn insert<T>(
    tx: &mut MySqlConnection,
    head: &'static str,
    tail: &'static str,
    rows: &[T],
    fill: fn(&mut RowValues<'_>, &T),
) -> Result<(), Error> {
    for chunk in chunks(rows) {
        let mut statement = QueryBuilder::new(head);
        statement.push_values(chunk, |mut row, values| fill(&mut row, values));
        statement.push(tail).build().execute(&mut *tx).await?;
    }
    Ok(())
}

/// Splits rows into chunks of [`CHUNK_SIZES`], the largest first.
pub(super) fn chunks<T>(mut rows: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let size = CHUNK_SIZES.into_iter().find(|size| *size <= rows.len())?;
        let (chunk, rest) = rows.split_at(size);
        rows = rest;
        Some(chunk)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_have_fixed_sizes_and_cover_all_rows() {
        for count in [0, 1, 15, 16, 17, 127, 128, 1023, 1024, 5000] {
            let rows: Vec<usize> = (0..count).collect();
            let chunks: Vec<_> = super::chunks(&rows).collect();
            assert!(chunks.iter().all(|chunk| CHUNK_SIZES.contains(&chunk.len())), "{count}");
            assert_eq!(chunks.concat(), rows);
        }
    }
}
