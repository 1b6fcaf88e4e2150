//! Money: balances, ledgers, and the sums over everything.

use std::collections::BTreeMap;

use bytes::Bytes;
use sqlx::QueryBuilder;
use uuid::Uuid;

use super::{AuditContext, CheckTally, push_values};
use crate::ids::UserId;
use crate::partition::{HashSlot, Partition};
use crate::store_error::StoreError;

/// Every balance is the same in both stores and not negative.
pub(super) async fn check_wallets(context: &AuditContext<'_>) -> Result<CheckTally, StoreError> {
    let mut tally = CheckTally::new("wallets", "the same balance in both stores, none negative");
    let inspect = |chunk: Vec<UserId>| async move { inspect_wallets(context, &chunk).await };
    for partition in context.partitions() {
        context
            .walk_hash(
                &mut tally,
                (partition, "wallets"),
                |field| parse_user(context, partition, field),
                &inspect,
            )
            .await?;
    }
    let select = "SELECT user_id FROM wallets WHERE user_id > ? ORDER BY user_id LIMIT 500";
    context.walk_table(&mut tally, select, &inspect).await?;
    Ok(tally)
}

async fn inspect_wallets(
    context: &AuditContext<'_>,
    users: &[UserId],
) -> Result<Vec<(UserId, String)>, StoreError> {
    let fields = user_fields(context, users);
    let here = context.fields("wallets", &fields).await?;
    let mut query =
        QueryBuilder::new("SELECT user_id, slot, balance FROM wallets WHERE user_id IN (");
    push_values(query.separated(", "), &user_uuids(users));
    let rows: Vec<(Uuid, u16, i64)> =
        query.push(")").build_query_as().persistent(false).fetch_all(context.mysql).await?;
    let rows: BTreeMap<Uuid, (u16, i64)> =
        rows.into_iter().map(|(user, slot, balance)| (user, (slot, balance))).collect();
    let mut faults = Vec::new();
    for (user, balance) in users.iter().zip(here) {
        let balance = balance.map(|text| String::from_utf8_lossy(&text).into_owned());
        let row = rows.get(&user.uuid());
        let in_mysql = row.map(|row| row.1.to_string());
        if balance != in_mysql {
            let name = |in_mysql: Option<String>| in_mysql.unwrap_or_else(|| "nothing".to_owned());
            faults.push((
                *user,
                format!(
                    "the wallet of {user} holds {} in Redis, {} in MySQL",
                    name(balance),
                    name(in_mysql)
                ),
            ));
        } else if row.is_some_and(|row| row.1 < 0 || HashSlot::from_low_bits(row.0) != user.slot())
        {
            faults.push((
                *user,
                format!("the wallet of {user} has a negative balance or the wrong hash slot"),
            ));
        }
    }
    Ok(faults)
}

/// The hash fields of users: their 16 bytes.
pub(super) fn user_fields(context: &AuditContext<'_>, users: &[UserId]) -> Vec<(Partition, Bytes)> {
    let field_of = |user: &UserId| {
        (context.redis.keys().partition(user.slot()), Bytes::copy_from_slice(user.as_bytes()))
    };
    users.iter().map(field_of).collect()
}

/// Parses the user id of a hash field; `None` when the user belongs to another partition.
pub(super) fn parse_user(
    context: &AuditContext<'_>,
    partition: Partition,
    field: &[u8],
) -> Option<UserId> {
    UserId::from_slice(field).filter(|user| context.partition(user.slot()) == partition)
}

pub(super) fn user_uuids(users: &[UserId]) -> Vec<Uuid> {
    users.iter().map(|user| user.uuid()).collect()
}

/// Every ledger is consistent: each entry follows from the one before, the last balance is the
/// wallet's, the debits of payments are the price of the confirmed ones and the paid totals in
/// Redis, and there are no more reward entries than claims.
pub(super) async fn check_ledgers(context: &AuditContext<'_>) -> Result<CheckTally, StoreError> {
    let mut tally = CheckTally::new(
        "ledgers",
        "the entries of each user add up to the balance; debits minus refunds are the price of \
         confirmed payments and the paid total; at most one reward for each claim",
    );
    let inspect = |chunk: Vec<UserId>| async move { inspect_ledgers(context, &chunk).await };
    // Users with a wallet, a ledger entry or a reservation.
    let select = "(SELECT user_id FROM wallets WHERE user_id > ? ORDER BY user_id LIMIT 500) \
        UNION (SELECT DISTINCT user_id FROM wallet_entries WHERE user_id > ? ORDER BY user_id \
        LIMIT 500) \
        UNION (SELECT DISTINCT user_id FROM reservations WHERE user_id > ? ORDER BY user_id LIMIT \
        500) ORDER BY user_id LIMIT 500";
    context.walk_table(&mut tally, select, &inspect).await?;
    Ok(tally)
}

#[derive(sqlx::FromRow)]
struct LedgerRecord {
    user_id: Uuid,
    total: i64,
    spent: i64,
    times: i64,
    broken: i64,
    rewards: i64,
}

async fn inspect_ledgers(
    context: &AuditContext<'_>,
    users: &[UserId],
) -> Result<Vec<(UserId, String)>, StoreError> {
    let ids = user_uuids(users);
    let mut query = QueryBuilder::new(
        "SELECT user_id, CAST(SUM(change_) AS SIGNED) AS total, \
         CAST(SUM(CASE WHEN kind IN ('payment', 'refund') THEN -change_ ELSE 0 END) AS SIGNED) AS \
         spent, \
         CAST(SUM(CASE WHEN kind = 'payment' THEN 1 WHEN kind = 'refund' AND (attempt IS NOT NULL OR \
         ends_payment) THEN -1 ELSE 0 END) AS SIGNED) AS times, \
         CAST(SUM(CASE WHEN balance - earlier <> change_ THEN 1 ELSE 0 END) AS SIGNED) AS broken, \
         CAST(SUM(CASE WHEN kind = 'reward' THEN 1 ELSE 0 END) AS SIGNED) AS rewards \
         FROM (SELECT user_id, kind, attempt, ends_payment, balance, CASE WHEN kind IN ('charge', 'refund', 'reward') \
         THEN amount ELSE -amount END AS change_, \
         COALESCE(LAG(balance) OVER (PARTITION BY user_id ORDER BY position), 0) AS earlier FROM \
         wallet_entries WHERE user_id IN (",
    );
    push_values(query.separated(", "), &ids);
    query.push(")) lines_ GROUP BY user_id");
    let ledgers: Vec<LedgerRecord> =
        query.build_query_as().persistent(false).fetch_all(context.mysql).await?;
    let ledgers: BTreeMap<Uuid, LedgerRecord> =
        ledgers.into_iter().map(|ledger| (ledger.user_id, ledger)).collect();
    let balances = values_by_user(
        context,
        &ids,
        "SELECT user_id, balance FROM wallets WHERE user_id IN (",
        ")",
    )
    .await?;
    let paid = values_by_user(
        context,
        &ids,
        "SELECT r.user_id, CAST(SUM(p.wallet_amount - p.wallet_refunded) AS SIGNED) FROM reservations r JOIN \
         payments p ON p.reservation_id = r.id \
         WHERE p.status = 'confirmed' AND r.user_id IN (",
        ") GROUP BY r.user_id",
    )
    .await?;
    // What wallets have paid of external payments that wait.
    let waiting = values_by_user(
        context,
        &ids,
        "SELECT user_id, CAST(SUM(wallet_amount) AS SIGNED) FROM pending_payments WHERE user_id IN (",
        ") GROUP BY user_id",
    )
    .await?;
    let claims = values_by_user(
        context,
        &ids,
        "SELECT user_id, CAST(COUNT(*) AS SIGNED) FROM reward_claims WHERE once = 1 AND \
         user_id IN (",
        ") GROUP BY user_id",
    )
    .await?;
    let totals = paid_totals(context, &ids).await?;
    // A payment of which the wallet pays nothing has no ledger entry.
    let free = values_by_user(
        context,
        &ids,
        "SELECT user_id, CAST(COUNT(*) AS SIGNED) FROM payments WHERE status = 'confirmed' AND \
         wallet_amount = 0 AND user_id IN (",
        ") GROUP BY user_id",
    )
    .await?;
    let in_redis = context.fields("tallies", &user_fields(context, users)).await?;
    let mut faults = Vec::new();
    for (user, total_in_redis) in users.iter().zip(in_redis) {
        let of = |map: &BTreeMap<Uuid, i64>| map.get(&user.uuid()).copied().unwrap_or_default();
        let ledger = ledgers.get(&user.uuid());
        let (total, spent, times, broken, rewards) = ledger
            .map_or((0, 0, 0, 0, 0), |it| (it.total, it.spent, it.times, it.broken, it.rewards));
        let mut wrong =
            |text: String| faults.push((*user, format!("the ledger of {user}: {text}")));
        if broken > 0 {
            wrong(format!("{broken} entries do not follow from the entry before"));
        }
        if total != of(&balances) {
            wrong(format!("adds up to {total}, but the balance is {}", of(&balances)));
        }
        let paid = of(&paid) + of(&waiting);
        if spent != paid {
            wrong(format!("{spent} went to payments, but the confirmed ones cost {paid}"));
        }
        let in_wallet = totals.get(&user.uuid()).copied().unwrap_or_default();
        if in_wallet != (spent, times) {
            wrong(format!(
                "{times} debits of {spent} in total, but the wallet has {} of {}",
                in_wallet.1, in_wallet.0
            ));
        }
        let total_in_redis =
            total_in_redis.map_or("0 0".into(), |text| String::from_utf8_lossy(&text).into_owned());
        let expected = format!("{spent} {}", times + of(&free));
        if total_in_redis != expected {
            wrong(format!(
                "the paid total and count are {expected} in MySQL, {total_in_redis} in Redis"
            ));
        }
        if rewards > of(&claims) {
            wrong(format!("{rewards} rewards for {} claims", of(&claims)));
        }
    }
    Ok(faults)
}

/// The paid total and count that the writer keeps in the wallets.
async fn paid_totals(
    context: &AuditContext<'_>,
    users: &[Uuid],
) -> Result<BTreeMap<Uuid, (i64, i64)>, StoreError> {
    let mut query =
        QueryBuilder::new("SELECT user_id, paid_total, paid_count FROM wallets WHERE user_id IN (");
    push_values(query.separated(", "), users);
    let rows: Vec<(Uuid, i64, i64)> =
        query.push(")").build_query_as().persistent(false).fetch_all(context.mysql).await?;
    Ok(rows.into_iter().map(|(user, total, count)| (user, (total, count))).collect())
}

/// One number per user.
async fn values_by_user(
    context: &AuditContext<'_>,
    users: &[Uuid],
    head: &'static str,
    tail: &'static str,
) -> Result<BTreeMap<Uuid, i64>, StoreError> {
    let mut query = QueryBuilder::new(head);
    push_values(query.separated(", "), users);
    let rows: Vec<(Uuid, i64)> =
        query.push(tail).build_query_as().persistent(false).fetch_all(context.mysql).await?;
    Ok(rows.into_iter().collect())
}

#[derive(sqlx::FromRow)]
struct WalletSums {
    balances: i64,
    charges: i64,
    uses: i64,
    rewards: i64,
    debits: i64,
    refunds: i64,
    paid: i64,
}

/// One statement reads one snapshot of MySQL, in which every partition is at its checkpoint.
const SUMS: &str = "SELECT \
    (SELECT CAST(COALESCE(SUM(balance), 0) AS SIGNED) FROM wallets) AS balances, \
    (SELECT CAST(COALESCE(SUM(wallet_amount - wallet_refunded), 0) AS SIGNED) FROM payments WHERE \
    status = 'confirmed') + (SELECT CAST(COALESCE(SUM(wallet_amount), 0) AS SIGNED) FROM \
    pending_payments) AS paid, \
    CAST(COALESCE(SUM(CASE WHEN kind = 'charge' THEN amount END), 0) AS SIGNED) AS charges, \
    CAST(COALESCE(SUM(CASE WHEN kind = 'use' THEN amount END), 0) AS SIGNED) AS uses, \
    CAST(COALESCE(SUM(CASE kind WHEN 'reward' THEN amount WHEN 'reward_reversal' THEN -amount END), \
    0) AS SIGNED) AS rewards, \
    CAST(COALESCE(SUM(CASE WHEN kind = 'payment' THEN amount END), 0) AS SIGNED) AS debits, \
    CAST(COALESCE(SUM(CASE WHEN kind = 'refund' THEN amount END), 0) AS SIGNED) AS refunds FROM \
    wallet_entries";

/// Σ balances + Σ wallet parts of confirmed and waiting payments + Σ uses = Σ charges + Σ rewards.
/// Debits of payments in progress are on neither side, so this is exact only when nothing changes.
pub(super) async fn check_sums(context: &AuditContext<'_>) -> Result<CheckTally, StoreError> {
    let mut tally = CheckTally::new("money", "");
    context.record_progress(tally.name, 1);
    let before = context.reinspection.wait_until_quiescent().await?;
    let sums: WalletSums = sqlx::query_as(SUMS).fetch_one(context.mysql).await?;
    let is_quiescent =
        before.is_some() && before == context.reinspection.quiescent_sequences().await?;
    tally.mysql = Some(sums.balances);
    if is_quiescent {
        tally.redis = Some(balances_in_redis(context).await?);
    }
    let WalletSums { balances, charges, uses, rewards, debits, refunds, paid } = sums;
    let moment = if is_quiescent {
        "with nothing in progress"
    } else {
        "in a snapshot of MySQL with payments in progress"
    };
    tally.note = format!(
        "{moment}: balances {balances} + confirmed payments {paid} + uses {uses} = charges \
         {charges} + \
         rewards {rewards}; in progress {}",
        debits - refunds - paid
    );
    if balances + uses + debits - refunds != charges + rewards {
        tally.add_faults(vec![format!(
            "the ledgers add up to {}, the wallets to {balances}",
            charges + rewards - uses - debits + refunds
        )]);
    }
    if is_quiescent && debits - refunds != paid {
        tally.add_faults(vec![format!(
            "{} were debited and not refunded, but the confirmed payments cost {paid}",
            debits - refunds
        )]);
    }
    if is_quiescent
        && tally.redis != tally.mysql
        && before == context.reinspection.quiescent_sequences().await?
    {
        tally.add_faults(vec!["the sum of all balances differs between the stores".to_owned()]);
    }
    Ok(tally)
}

async fn balances_in_redis(context: &AuditContext<'_>) -> Result<i64, StoreError> {
    let mut sum = 0_i64;
    for partition in context.partitions() {
        let (mut from, mut seen) = (None, std::collections::HashSet::new());
        loop {
            let page = context.redis.scan_hash(partition, "wallets", from).await?;
            for (user, balance) in page.pairs {
                // HSCAN may return an element twice while the hash grows or shrinks.
                if seen.insert(user) {
                    sum += std::str::from_utf8(&balance)
                        .ok()
                        .and_then(|text| text.parse::<i64>().ok())
                        .unwrap_or_default();
                }
            }
            from = page.next;
            if from.is_none() {
                break;
            }
        }
    }
    Ok(sum)
}
