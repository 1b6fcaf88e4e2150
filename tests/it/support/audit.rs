//! Compares Redis with MySQL row by row, and checks the invariants of both.

use std::collections::BTreeMap;
use std::time::Duration;

use sqlx::FromRow;
use usher::audit::{AuditReport, audit};
use usher::outbox::event::SeatCancellation;
use usher::partition::PartitionCount;
use usher::payment::Payment;
use usher::redis::{KeyBuilder, RedisClient, RedisClientSettings, ReplicationRequirement};
use usher::seats::Reservation;
use uuid::Uuid;

use super::eventually;
use super::resp::{RespClient, RespValue};
use super::servers::{PARTITIONS, TestStores};

/// A payment, as both stores must have it.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub(crate) struct PaymentFact {
    pub(crate) id: Uuid,
    pub(crate) reservation_id: Uuid,
    pub(crate) user_id: Uuid,
    pub(crate) queue_id: String,
    pub(crate) amount: i64,
    pub(crate) discount: i64,
    pub(crate) status: String,
    pub(crate) attempt: u32,
    pub(crate) balance_after: Option<i64>,
    pub(crate) refunded: i64,
    /// What the provider took; `None` for a payment by wallet.
    pub(crate) external_amount: Option<i64>,
    pub(crate) reference: Option<String>,
    pub(crate) provider_refunds: String,
}

/// A reservation, as both stores must have it.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub(crate) struct ReservationFact {
    pub(crate) id: Uuid,
    pub(crate) user_id: Uuid,
    pub(crate) queue_id: String,
    pub(crate) concert_id: String,
    pub(crate) schedule_id: String,
    pub(crate) seats: String,
    pub(crate) amount: i64,
    pub(crate) status: String,
    /// As JSON, `[]` if nothing was cancelled.
    pub(crate) cancellations: String,
}

/// All durable state of one store.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct StoreFacts {
    pub(crate) wallets: BTreeMap<Uuid, i64>,
    pub(crate) payments: BTreeMap<Uuid, PaymentFact>,
    pub(crate) reservations: BTreeMap<Uuid, ReservationFact>,
    /// The reservation that owns each sold seat.
    pub(crate) sold: BTreeMap<(String, u32), Uuid>,
}

/// An entry of a ledger.
#[derive(Debug, FromRow)]
pub(crate) struct LedgerEntryFact {
    pub(crate) user_id: Uuid,
    pub(crate) kind: String,
    pub(crate) amount: i64,
    pub(crate) balance: i64,
}

impl PaymentFact {
    fn wallet_amount(&self) -> i64 {
        self.amount - self.discount - self.external_amount.unwrap_or(0)
    }
}

impl StoreFacts {
    pub(crate) fn payments_that_are(&self, status: &str) -> usize {
        self.payments.values().filter(|payment| payment.status == status).count()
    }
}

impl TestStores {
    /// The entries of an outbox that MySQL does not have, as far as Redis knows.
    pub(crate) async fn backlog(&self, redis: &mut RespClient, partition: u16) -> i64 {
        let mut number = async |name| match redis.ask(&["GET", &self.key(partition, name)]).await {
            RespValue::Nil => 0,
            number => number.int(),
        };
        number("seq").await - number("written").await
    }

    pub(crate) async fn wait_until_written(&self) {
        eventually("every outbox is empty", || async {
            let mut redis = self.redis().await;
            for partition in 0..PARTITIONS {
                if self.backlog(&mut redis, partition).await > 0 {
                    return None;
                }
            }
            Some(())
        })
        .await;
    }

    /// Waits until no payment is under way and every outbox is empty. Returns the sequence of each
    /// partition.
    pub(crate) async fn wait_until_idle(&self) -> Vec<i64> {
        eventually("every payment ends and the outbox is empty", async || {
            self.idle_sequences().await
        })
        .await
    }

    async fn idle_sequences(&self) -> Option<Vec<i64>> {
        let mut redis = self.redis().await;
        let before = self.sequences().await;
        // An external payment that waits is due later, and no work.
        let soon = (chrono::Utc::now().timestamp_millis() + 20_000).to_string();
        for due in redis.ask(&["KEYS", &format!("{}:*:due", self.prefix)]).await.list() {
            if redis.ask(&["ZCOUNT", &due.text(), "-inf", &soon]).await.int() > 0 {
                return None;
            }
        }
        for partition in 0..PARTITIONS {
            if self.backlog(&mut redis, partition).await > 0 {
                return None;
            }
        }
        (before == self.sequences().await).then_some(before)
    }

    async fn sequences(&self) -> Vec<i64> {
        let mut redis = self.redis().await;
        let mut sequences = Vec::new();
        for partition in 0..PARTITIONS {
            sequences.push(match redis.ask(&["GET", &self.key(partition, "seq")]).await {
                RespValue::Nil => 0,
                seq => seq.int(),
            });
        }
        sequences
    }

    /// Both stores at one moment without unfinished work. Promotions and expired holds may change a
    /// store between two reads, and then it reads again.
    async fn facts(&self) -> (StoreFacts, StoreFacts) {
        eventually("both stores are unchanged while they are read", async || {
            let before = self.idle_sequences().await?;
            let (redis, mysql) = (self.facts_of_redis().await, self.facts_of_mysql().await);
            self.check_checkpoints(&before).await?;
            (self.idle_sequences().await? == before).then_some((redis, mysql))
        })
        .await
    }

    /// Waits for idle stores, compares them, checks the invariants, and returns the state.
    pub(crate) async fn audit(&self) -> StoreFacts {
        let (redis, mysql) = self.facts().await;
        assert_eq!(redis.wallets, mysql.wallets, "wallets");
        assert_eq!(redis.payments, mysql.payments, "payments");
        assert_eq!(redis.reservations, mysql.reservations, "reservations");
        assert_eq!(redis.sold, mysql.sold, "sold seats");
        self.check_payments(&redis);
        self.check_money(&redis).await;
        let report = self.audit_command(Duration::from_secs(20)).await;
        assert!(
            report.consistent,
            "the audit command found a violation that this audit did not: {report:#?}"
        );
        redis
    }

    /// The report of `usher audit`. It shares no code with this audit, so each of the two checks
    /// the other.
    pub(crate) async fn audit_command(&self, patience: Duration) -> AuditReport {
        let keys = KeyBuilder::new(&self.prefix, PartitionCount::new(PARTITIONS).unwrap());
        let settings = RedisClientSettings {
            ca_file: None,
            url: self.redis_url().into(),
            command_timeout: Duration::from_secs(5),
            may_forget: false,
            replication: ReplicationRequirement::default(),
            kept_entries: usher::redis::KeptEntries::default(),
        };
        let redis = RedisClient::connect(&settings, keys).await.unwrap();
        let report = Box::pin(audit(&redis, &self.mysql, patience, &|_, _, _| ())).await.unwrap();
        redis.close().await;
        report
    }

    /// Each payment has one end, and is confirmed exactly if its reservation owns the seats.
    fn check_payments(&self, facts: &StoreFacts) {
        let mut owned = BTreeMap::<Uuid, Vec<u32>>::new();
        for ((_, number), reservation) in &facts.sold {
            owned.entry(*reservation).or_default().push(*number);
        }
        let mut confirmed = Vec::new();
        for payment in facts.payments.values() {
            assert!(
                ["confirmed", "declined", "voided", "refunded"].contains(&payment.status.as_str()),
                "{payment:?}"
            );
            if payment.status == "confirmed" {
                confirmed.push(payment.reservation_id);
            }
        }
        for reservation in facts.reservations.values().filter(|it| it.status == "confirmed") {
            let cancellations: Vec<SeatCancellation> =
                serde_json::from_str(&reservation.cancellations).unwrap();
            let cancelled: Vec<u32> = cancellations.into_iter().flat_map(|it| it.seats).collect();
            let seats: Vec<u32> =
                serde_json::from_str::<Vec<serde_json::Value>>(&reservation.seats)
                    .unwrap()
                    .iter()
                    .map(|seat| u32::try_from(seat["number"].as_u64().unwrap()).unwrap())
                    .filter(|number| !cancelled.contains(number))
                    .collect();
            let mut owns = owned.remove(&reservation.id).unwrap_or_default();
            owns.sort_unstable();
            let mut seats = seats;
            seats.sort_unstable();
            assert_eq!(owns, seats, "the seats of a confirmed reservation: {reservation:?}");
            let paid = confirmed.iter().filter(|id| **id == reservation.id).count();
            assert_eq!(paid, 1, "payments of a confirmed reservation: {reservation:?}");
        }
        assert_eq!(owned, BTreeMap::new(), "seats sold without a payment");
        let sold = facts.reservations.values().filter(|it| it.status == "confirmed").count();
        assert_eq!(confirmed.len(), sold, "confirmed payments and confirmed reservations");
    }

    /// Every user's ledger adds up to the balance, and contains the cost of the confirmed payments.
    async fn check_money(&self, facts: &StoreFacts) {
        let entries: Vec<LedgerEntryFact> = sqlx::query_as(
            "SELECT user_id, kind, amount, balance FROM wallet_entries ORDER BY user_id, position",
        )
        .fetch_all(&self.mysql)
        .await
        .unwrap();
        let (mut balances, mut spent) =
            (BTreeMap::<Uuid, i64>::new(), BTreeMap::<Uuid, i64>::new());
        for entry in &entries {
            let change = match entry.kind.as_str() {
                "charge" | "refund" | "reward" => entry.amount,
                "use" | "payment" | "reward_reversal" => -entry.amount,
                other => panic!("an entry of the kind {other}"),
            };
            let balance = balances.entry(entry.user_id).or_default();
            *balance += change;
            assert_eq!(*balance, entry.balance, "the ledger's running balance: {entry:?}");
            if matches!(entry.kind.as_str(), "payment" | "refund") {
                *spent.entry(entry.user_id).or_default() -= change;
            }
        }
        assert_eq!(balances, facts.wallets, "the ledger and the wallets");
        let mut paid = BTreeMap::<Uuid, i64>::new();
        for payment in facts.payments.values().filter(|payment| payment.status == "confirmed") {
            *paid.entry(payment.user_id).or_default() +=
                payment.wallet_amount() - payment.refunded.min(payment.wallet_amount());
        }
        let waiting: Vec<(Uuid, i64)> =
            sqlx::query_as("SELECT user_id, wallet_amount FROM pending_payments")
                .fetch_all(&self.mysql)
                .await
                .unwrap();
        for (user, amount) in waiting {
            *paid.entry(user).or_default() += amount;
        }
        let nothing = |_: &Uuid, amount: &mut i64| *amount != 0;
        spent.retain(nothing);
        paid.retain(nothing);
        assert_eq!(spent, paid, "debits and confirmed payments");
    }

    /// The checkpoints equal the sequences: no event is skipped and none is missing. Returns `None`
    /// if one of them changed during the check.
    async fn check_checkpoints(&self, sequences: &[i64]) -> Option<()> {
        let checkpoints: Vec<u64> =
            sqlx::query_scalar("SELECT n FROM outbox_checkpoints ORDER BY partition_id")
                .fetch_all(&self.mysql)
                .await
                .unwrap();
        let checkpoints: Vec<i64> =
            checkpoints.into_iter().map(|n| i64::try_from(n).unwrap()).collect();
        if self.sequences().await != sequences {
            return None;
        }
        assert_eq!(checkpoints, sequences, "checkpoints and sequences");
        Some(())
    }

    async fn facts_of_redis(&self) -> StoreFacts {
        let mut redis = self.redis().await;
        let mut facts = StoreFacts::default();
        for partition in 0..PARTITIONS {
            for (user, balance) in redis.hash(&self.key(partition, "wallets")).await {
                let balance = String::from_utf8(balance).unwrap().parse().unwrap();
                facts.wallets.insert(Uuid::from_slice(&user).unwrap(), balance);
            }
            for packed in redis.hash(&self.key(partition, "payments")).await.into_values() {
                let payment: Payment = rmp_serde::from_slice(&packed).unwrap();
                if payment.state != usher::payment::PaymentState::Pending {
                    let payment = payment_fact(payment);
                    facts.payments.insert(payment.id, payment);
                }
            }
            for packed in redis.hash(&self.key(partition, "reservations")).await.into_values() {
                let reservation = reservation_fact(rmp_serde::from_slice(&packed).unwrap());
                if !["held", "paying"].contains(&reservation.status.as_str()) {
                    facts.reservations.insert(reservation.id, reservation);
                }
            }
        }
        for key in redis.ask(&["KEYS", &format!("{}:*:seats", self.prefix)]).await.list() {
            let key = key.text();
            let schedule = key.rsplit(':').nth(1).unwrap().to_owned();
            for (number, value) in redis.hash(&key).await {
                if &value[16..] == b"s" {
                    let number = String::from_utf8(number).unwrap().parse().unwrap();
                    facts.sold.insert(
                        (schedule.clone(), number),
                        Uuid::from_slice(&value[..16]).unwrap(),
                    );
                }
            }
        }
        facts
    }

    async fn facts_of_mysql(&self) -> StoreFacts {
        let wallets: Vec<(Uuid, i64)> = sqlx::query_as("SELECT user_id, balance FROM wallets")
            .fetch_all(&self.mysql)
            .await
            .unwrap();
        let payments: Vec<PaymentFact> = sqlx::query_as(
            "SELECT id, reservation_id, user_id, queue_id, amount, discount, status, attempt, \
                 balance_after, refunded, external_amount, reference, \
                 COALESCE(CAST(provider_refunds AS CHAR), '[]') AS provider_refunds FROM payments \
                 WHERE id NOT IN (SELECT id FROM pending_payments)",
        )
        .fetch_all(&self.mysql)
        .await
        .unwrap();
        let reservations: Vec<ReservationFact> = sqlx::query_as(
            "SELECT id, user_id, queue_id, concert_id, schedule_id, CAST(seats AS CHAR) AS seats, \
                 amount, status, COALESCE(CAST(cancellations AS CHAR), '[]') AS cancellations \
                 FROM reservations",
        )
        .fetch_all(&self.mysql)
        .await
        .unwrap();
        let sold: Vec<(String, u32, Uuid)> = sqlx::query_as(
            "SELECT schedule_id, seat_number, reservation_id FROM reservation_seats",
        )
        .fetch_all(&self.mysql)
        .await
        .unwrap();
        StoreFacts {
            wallets: wallets.into_iter().collect(),
            payments: payments.into_iter().map(|payment| (payment.id, payment)).collect(),
            reservations: reservations.into_iter().map(|it| (it.id, plain(it))).collect(),
            sold: sold.into_iter().map(|(schedule, number, id)| ((schedule, number), id)).collect(),
        }
    }
}

fn payment_fact(payment: Payment) -> PaymentFact {
    PaymentFact {
        id: payment.id.uuid(),
        reservation_id: payment.reservation.uuid(),
        user_id: payment.user.uuid(),
        queue_id: payment.queue.to_string(),
        amount: payment.amount.get(),
        discount: payment.discount.get(),
        status: format!("{:?}", payment.state).to_lowercase(),
        attempt: payment.attempt,
        balance_after: payment.balance_after.map(|balance| balance.get()),
        refunded: payment.refunded.get(),
        external_amount: payment
            .external
            .as_ref()
            .map(|external| external.due_amount.map_or(0, |due| due.get())),
        reference: payment.external.as_ref().and_then(|external| external.reference.clone()),
        provider_refunds: payment
            .external
            .map_or("[]".to_owned(), |it| serde_json::to_string(&it.refunds).unwrap()),
    }
}

fn reservation_fact(reservation: Reservation) -> ReservationFact {
    plain(ReservationFact {
        id: reservation.id.uuid(),
        user_id: reservation.user.uuid(),
        queue_id: reservation.queue.to_string(),
        concert_id: reservation.concert.to_string(),
        schedule_id: reservation.schedule.to_string(),
        seats: serde_json::to_string(&reservation.seats).unwrap(),
        amount: reservation.amount.get(),
        status: format!("{:?}", reservation.status).to_lowercase(),
        cancellations: serde_json::to_string(&reservation.cancellations).unwrap(),
    })
}

/// Normalizes JSON: a server may add spaces.
fn plain(mut reservation: ReservationFact) -> ReservationFact {
    for text in [&mut reservation.seats, &mut reservation.cancellations] {
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        *text = value.to_string();
    }
    reservation
}
