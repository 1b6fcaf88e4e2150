//! Money: balances, ledgers, and the sums over everything.

use std::collections::BTreeMap;

use bytes::Bytes;
use sqlx::QueryBuilder;
use uuid::Uuid;

use super::{AuditContext, CheckTally, push_values};
use crate::ids::UserId;
use crate::partition::{HashSlot, Partition};
use crate::store_error::StoreError;

/// Every balance: the same in both stores, and not below nothing.
pub(super) async fn check_wallets(scene: &AuditContext<'_>) -> Result<CheckTally, StoreError> {
    let mut tally = CheckTally::new("wallets", "the same balance in both stores, none below 0");
    let inspect = |some: Vec<UserId>| async move { inspect_wallets(scene, &some).await };
    for partition in scene.partitions() {
        scene
            .walk_hash(
                &mut tally,
                (partition, "wallets"),
                |field| parse_user(scene, partition, field),
                &inspect,
            )
            .await?;
    }
    let select = "SELECT user_id FROM wallets WHERE user_id > ? ORDER BY user_id LIMIT 500";
    scene.walk_table(&mut tally, select, &inspect).await?;
    Ok(tally)
}

async fn inspect_wallets(
    scene: &AuditContext<'_>,
    users: &[UserId],
) -> Result<Vec<(UserId, String)>, StoreError> {
    let fields = user_fields(scene, users);
    let here = scene.fields("wallets", &fields).await?;
    let mut query =
        QueryBuilder::new("SELECT user_id, slot, balance FROM wallets WHERE user_id IN (");
    push_values(query.separated(", "), &user_uuids(users));
    let rows: Vec<(Uuid, u16, i64)> =
        query.push(")").build_query_as().persistent(false).fetch_all(scene.mysql).await?;
    let rows: BTreeMap<Uuid, (u16, i64)> =
        rows.into_iter().map(|(user, slot, balance)| (user, (slot, balance))).collect();
    let mut faults = Vec::new();
    for (user, balance) in users.iter().zip(here) {
        let balance = balance.map(|text| String::from_utf8_lossy(&text).into_owned());
        let row = rows.get(&user.uuid());
        let told = row.map(|row| row.1.to_string());
        if balance != told {
            let name = |told: Option<String>| told.unwrap_or_else(|| "nothing".to_owned());
            faults.push((
                *user,
                format!(
                    "the wallet of {user} holds {} in Redis, {} in MySQL",
                    name(balance),
                    name(told)
                ),
            ));
        } else if row.is_some_and(|row| row.1 < 0 || HashSlot::from_low_bits(row.0) != user.slot())
        {
            faults.push((*user, format!("the wallet of {user} is below 0 or in another slot")));
        }
    }
    Ok(faults)
}

/// What stands in a hash under the users' sixteen bytes.
pub(super) fn user_fields(scene: &AuditContext<'_>, users: &[UserId]) -> Vec<(Partition, Bytes)> {
    let place = |user: &UserId| {
        (scene.redis.keys().partition(user.slot()), Bytes::copy_from_slice(user.as_bytes()))
    };
    users.iter().map(place).collect()
}

/// The user whose sixteen bytes stand in a hash of their partition.
pub(super) fn parse_user(
    scene: &AuditContext<'_>,
    partition: Partition,
    field: &[u8],
) -> Option<UserId> {
    UserId::from_slice(field).filter(|user| scene.partition(user.slot()) == partition)
}

pub(super) fn user_uuids(users: &[UserId]) -> Vec<Uuid> {
    users.iter().map(|user| user.uuid()).collect()
}

/// Every ledger: each line follows from the one before it, the last one is the balance, what went to payments is what the confirmed ones cost and what
/// Redis has tallied for the conditions of rewards, and there is no more reward than claims.
pub(super) async fn check_ledgers(scene: &AuditContext<'_>) -> Result<CheckTally, StoreError> {
    let mut tally = CheckTally::new(
        "ledgers",
        "each user's lines add up to the balance; debits less refunds are what confirmed payments cost and what is tallied; a reward for each claim at most",
    );
    let inspect = |some: Vec<UserId>| async move { inspect_ledgers(scene, &some).await };
    // Whoever has money, a ledger or a reservation.
    let select = "(SELECT user_id FROM wallets WHERE user_id > ? ORDER BY user_id LIMIT 500) \
        UNION (SELECT DISTINCT user_id FROM wallet_entries WHERE user_id > ? ORDER BY user_id LIMIT 500) \
        UNION (SELECT DISTINCT user_id FROM reservations WHERE user_id > ? ORDER BY user_id LIMIT 500) ORDER BY user_id LIMIT 500";
    scene.walk_table(&mut tally, select, &inspect).await?;
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
    scene: &AuditContext<'_>,
    users: &[UserId],
) -> Result<Vec<(UserId, String)>, StoreError> {
    let ids = user_uuids(users);
    let mut query = QueryBuilder::new(
        "SELECT user_id, CAST(SUM(change_) AS SIGNED) AS total, \
         CAST(SUM(CASE WHEN kind IN ('payment', 'refund') THEN -change_ ELSE 0 END) AS SIGNED) AS spent, \
         CAST(SUM(CASE kind WHEN 'payment' THEN 1 WHEN 'refund' THEN -1 ELSE 0 END) AS SIGNED) AS times, \
         CAST(SUM(CASE WHEN balance - earlier <> change_ THEN 1 ELSE 0 END) AS SIGNED) AS broken, \
         CAST(SUM(CASE WHEN kind = 'reward' THEN 1 ELSE 0 END) AS SIGNED) AS rewards \
         FROM (SELECT user_id, kind, balance, CASE WHEN kind IN ('charge', 'refund', 'reward') THEN amount ELSE -amount END AS change_, \
         COALESCE(LAG(balance) OVER (PARTITION BY user_id ORDER BY position), 0) AS earlier FROM wallet_entries WHERE user_id IN (",
    );
    push_values(query.separated(", "), &ids);
    query.push(")) lines_ GROUP BY user_id");
    let ledgers: Vec<LedgerRecord> =
        query.build_query_as().persistent(false).fetch_all(scene.mysql).await?;
    let ledgers: BTreeMap<Uuid, LedgerRecord> =
        ledgers.into_iter().map(|ledger| (ledger.user_id, ledger)).collect();
    let balances =
        values_by_user(scene, &ids, "SELECT user_id, balance FROM wallets WHERE user_id IN (", ")")
            .await?;
    let paid = values_by_user(
        scene,
        &ids,
        "SELECT r.user_id, CAST(SUM(p.amount - p.discount) AS SIGNED) FROM reservations r JOIN payments p ON p.reservation_id = r.id \
         WHERE p.status = 'confirmed' AND r.user_id IN (",
        ") GROUP BY r.user_id",
    )
    .await?;
    let claims = values_by_user(
        scene,
        &ids,
        "SELECT user_id, CAST(COUNT(*) AS SIGNED) FROM reward_claims WHERE status = 'success' AND user_id IN (",
        ") GROUP BY user_id",
    )
    .await?;
    // A payment of nothing has no line.
    let free = values_by_user(
        scene,
        &ids,
        "SELECT user_id, CAST(COUNT(*) AS SIGNED) FROM payments WHERE status = 'confirmed' AND amount = discount AND user_id IN (",
        ") GROUP BY user_id",
    )
    .await?;
    let tallies = scene.fields("tallies", &user_fields(scene, users)).await?;
    let mut faults = Vec::new();
    for (user, tallied) in users.iter().zip(tallies) {
        let of = |map: &BTreeMap<Uuid, i64>| map.get(&user.uuid()).copied().unwrap_or_default();
        let ledger = ledgers.get(&user.uuid());
        let (total, spent, times, broken, rewards) = ledger
            .map_or((0, 0, 0, 0, 0), |it| (it.total, it.spent, it.times, it.broken, it.rewards));
        let mut wrong =
            |text: String| faults.push((*user, format!("the ledger of {user}: {text}")));
        if broken > 0 {
            wrong(format!("{broken} lines do not follow from the line before"));
        }
        if total != of(&balances) {
            wrong(format!("adds up to {total}, and the balance is {}", of(&balances)));
        }
        if spent != of(&paid) {
            wrong(format!("{spent} went to payments, and the confirmed ones cost {}", of(&paid)));
        }
        let tallied =
            tallied.map_or("0 0".into(), |text| String::from_utf8_lossy(&text).into_owned());
        let tells = format!("{spent} {}", times + of(&free));
        if tallied != tells {
            wrong(format!("tells of «{tells}» spent and paid, and «{tallied}» is tallied"));
        }
        if rewards > of(&claims) {
            wrong(format!("{rewards} rewards for {} claims", of(&claims)));
        }
    }
    Ok(faults)
}

/// One number for each of some users.
async fn values_by_user(
    scene: &AuditContext<'_>,
    users: &[Uuid],
    head: &'static str,
    tail: &'static str,
) -> Result<BTreeMap<Uuid, i64>, StoreError> {
    let mut query = QueryBuilder::new(head);
    push_values(query.separated(", "), users);
    let rows: Vec<(Uuid, i64)> =
        query.push(tail).build_query_as().persistent(false).fetch_all(scene.mysql).await?;
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

/// One statement reads one state of MySQL: a cut at which every partition stands at its checkpoint.
const SUMS: &str = "SELECT \
    (SELECT CAST(COALESCE(SUM(balance), 0) AS SIGNED) FROM wallets) AS balances, \
    (SELECT CAST(COALESCE(SUM(amount - discount), 0) AS SIGNED) FROM payments WHERE status = 'confirmed') AS paid, \
    CAST(COALESCE(SUM(CASE WHEN kind = 'charge' THEN amount END), 0) AS SIGNED) AS charges, \
    CAST(COALESCE(SUM(CASE WHEN kind = 'use' THEN amount END), 0) AS SIGNED) AS uses, \
    CAST(COALESCE(SUM(CASE WHEN kind = 'reward' THEN amount END), 0) AS SIGNED) AS rewards, \
    CAST(COALESCE(SUM(CASE WHEN kind = 'payment' THEN amount END), 0) AS SIGNED) AS debits, \
    CAST(COALESCE(SUM(CASE WHEN kind = 'refund' THEN amount END), 0) AS SIGNED) AS refunds FROM wallet_entries";

/// Σ balances + Σ confirmed payments + Σ uses = Σ charges + Σ rewards. Debits of payments that are under way stand between the two sides, so it is
/// exact only at rest.
pub(super) async fn check_sums(scene: &AuditContext<'_>) -> Result<CheckTally, StoreError> {
    let mut tally = CheckTally::new("money", "");
    scene.record_progress(tally.name, 1);
    let before = scene.reinspection.wait_until_quiescent().await?;
    let sums: WalletSums = sqlx::query_as(SUMS).fetch_one(scene.mysql).await?;
    let drained = before.is_some() && before == scene.reinspection.quiescent_sequences().await?;
    tally.mysql = Some(sums.balances);
    if drained {
        tally.redis = Some(balances_in_redis(scene).await?);
    }
    let WalletSums { balances, charges, uses, rewards, debits, refunds, paid } = sums;
    let cut = if drained {
        "after a drain"
    } else {
        "at a consistent cut of MySQL while payments were under way"
    };
    tally.note = format!(
        "{cut}: balances {balances} + confirmed payments {paid} + uses {uses} = charges {charges} + rewards {rewards}; in motion {}",
        debits - refunds - paid
    );
    if balances + uses + debits - refunds != charges + rewards {
        tally.add_faults(vec![format!(
            "the ledger has {} and the wallets {balances}",
            charges + rewards - uses - debits + refunds
        )]);
    }
    if drained && debits - refunds != paid {
        tally.add_faults(vec![format!(
            "{} were debited and not given back, and {paid} paid",
            debits - refunds
        )]);
    }
    if drained && tally.redis != tally.mysql && before == scene.reinspection.quiescent_sequences().await? {
        tally.add_faults(vec!["the sum of all balances differs between the stores".to_owned()]);
    }
    Ok(tally)
}

async fn balances_in_redis(scene: &AuditContext<'_>) -> Result<i64, StoreError> {
    let mut sum = 0_i64;
    for partition in scene.partitions() {
        let (mut from, mut seen) = (None, std::collections::HashSet::new());
        loop {
            let part = scene.redis.scan_hash(partition, "wallets", from).await?;
            for (user, balance) in part.pairs {
                // A walk may give an element twice while the hash grows or shrinks.
                if seen.insert(user) {
                    sum += std::str::from_utf8(&balance)
                        .ok()
                        .and_then(|text| text.parse::<i64>().ok())
                        .unwrap_or_default();
                }
            }
            from = part.next;
            if from.is_none() {
                break;
            }
        }
    }
    Ok(sum)
}
