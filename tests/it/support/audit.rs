//! Holds Redis against MySQL row by row, and both against what DESIGN.md promises.

use std::collections::BTreeMap;
use std::time::Duration;

use sqlx::FromRow;
use usher::partition::PartitionCount;
use usher::payment::Payment;
use usher::audit::{AuditReport, audit};
use usher::redis::{KeyBuilder, RedisClient, RedisClientSettings, ReplicationRequirement};
use usher::seats::Reservation;
use uuid::Uuid;

use super::eventually;
use super::resp::Reply;
use super::servers::{PARTITIONS, Stores};

/// A payment, as both stores must tell it.
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
}

/// A reservation, as both stores must tell it.
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
}

/// Everything durable.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) wallets: BTreeMap<Uuid, i64>,
    pub(crate) payments: BTreeMap<Uuid, PaymentFact>,
    pub(crate) reservations: BTreeMap<Uuid, ReservationFact>,
    /// Who owns a seat that is sold.
    pub(crate) sold: BTreeMap<(String, u32), Uuid>,
}

/// A line of the ledger.
#[derive(Debug, FromRow)]
pub(crate) struct EntryFact {
    pub(crate) user_id: Uuid,
    pub(crate) kind: String,
    pub(crate) amount: i64,
    pub(crate) balance: i64,
}

impl Facts {
    /// How many payments have a status.
    pub(crate) fn payments_that_are(&self, status: &str) -> usize {
        self.payments.values().filter(|payment| payment.status == status).count()
    }
}

impl Stores {
    /// Waits until every outbox is empty.
    pub(crate) async fn written(&self) {
        eventually("every outbox is empty", || async {
            let mut redis = self.redis().await;
            for partition in 0..PARTITIONS {
                if redis.ask(&["XLEN", &self.key(partition, "outbox")]).await.int() > 0 {
                    return None;
                }
            }
            Some(())
        })
        .await;
    }

    /// Waits until no payment is under way and every outbox is empty. Gives how far each partition's sequence has come by then.
    pub(crate) async fn at_rest(&self) -> Vec<i64> {
        eventually("every payment ends and the outbox is empty", async || self.rests().await).await
    }

    async fn rests(&self) -> Option<Vec<i64>> {
        let mut redis = self.redis().await;
        let before = self.sequences().await;
        for due in redis.ask(&["KEYS", &format!("{}:*:due", self.prefix)]).await.list() {
            if redis.ask(&["ZCARD", &due.text()]).await.int() > 0 {
                return None;
            }
        }
        for partition in 0..PARTITIONS {
            if redis.ask(&["XLEN", &self.key(partition, "outbox")]).await.int() > 0 {
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
                Reply::Nil => 0,
                seq => seq.int(),
            });
        }
        sequences
    }

    /// Both stores as they are at one moment at which nothing is under way: instances that still let people in, or see holds lapse, change them between
    /// two looks, and then it is looked again.
    async fn facts(&self) -> (Facts, Facts) {
        eventually("both stores stand still while they are read", async || {
            let before = self.rests().await?;
            let (redis, mysql) = (self.facts_of_redis().await, self.facts_of_mysql().await);
            self.check_checkpoints(&before).await?;
            (self.rests().await? == before).then_some((redis, mysql))
        })
        .await
    }

    /// Waits for rest, holds the stores against each other and against the promises, and gives what they say.
    pub(crate) async fn audit(&self) -> Facts {
        let (redis, mysql) = self.facts().await;
        assert_eq!(redis.wallets, mysql.wallets, "wallets");
        assert_eq!(redis.payments, mysql.payments, "payments");
        assert_eq!(redis.reservations, mysql.reservations, "reservations");
        assert_eq!(redis.sold, mysql.sold, "sold seats");
        self.check_payments(&redis);
        self.check_money(&redis).await;
        let report = self.audit_command(Duration::from_secs(20)).await;
        assert!(report.consistent, "the audit command sees what this audit does not: {report:#?}");
        redis
    }

    /// What `usher audit` finds. It shares no code with this audit, so each holds the other to its word.
    pub(crate) async fn audit_command(&self, patience: Duration) -> AuditReport {
        let keys = KeyBuilder::new(&self.prefix, PartitionCount::new(PARTITIONS).unwrap());
        let settings = RedisClientSettings {
            ca_file: None,
            url: self.redis_url().into(),
            command_timeout: Duration::from_secs(5),
            may_forget: false,
            reach: ReplicationRequirement::default(),
        };
        let redis = RedisClient::connect(&settings, keys).await.unwrap();
        let report = Box::pin(audit(&redis, &self.mysql, patience, &|_, _, _| ())).await.unwrap();
        redis.close().await;
        report
    }

    /// Each payment at one end; confirmed exactly where the seats are sold to its reservation.
    fn check_payments(&self, facts: &Facts) {
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
            let seats: Vec<u32> =
                serde_json::from_str::<Vec<serde_json::Value>>(&reservation.seats)
                    .unwrap()
                    .iter()
                    .map(|seat| u32::try_from(seat["number"].as_u64().unwrap()).unwrap())
                    .collect();
            let mut owns = owned.remove(&reservation.id).unwrap_or_default();
            owns.sort_unstable();
            let mut seats = seats;
            seats.sort_unstable();
            assert_eq!(owns, seats, "what a confirmed reservation owns: {reservation:?}");
            let paid = confirmed.iter().filter(|id| **id == reservation.id).count();
            assert_eq!(paid, 1, "how often a confirmed reservation was paid: {reservation:?}");
        }
        assert_eq!(owned, BTreeMap::new(), "seats sold to nobody who paid");
        let sold = facts.reservations.values().filter(|it| it.status == "confirmed").count();
        assert_eq!(confirmed.len(), sold, "confirmed payments and confirmed reservations");
    }

    /// Every user's ledger adds up to the balance, and takes from it what the confirmed payments cost.
    async fn check_money(&self, facts: &Facts) {
        let entries: Vec<EntryFact> = sqlx::query_as(
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
                "use" | "payment" => -entry.amount,
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
            *paid.entry(payment.user_id).or_default() += payment.amount - payment.discount;
        }
        let nothing = |_: &Uuid, amount: &mut i64| *amount != 0;
        spent.retain(nothing);
        paid.retain(nothing);
        assert_eq!(spent, paid, "what the wallets gave and what was paid");
    }

    /// The checkpoints are where the sequences are: nothing was skipped and nothing is missing. Nothing when one has moved meanwhile.
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
        assert_eq!(checkpoints, sequences, "the checkpoints, and how far the sequences have come");
        Some(())
    }

    async fn facts_of_redis(&self) -> Facts {
        let mut redis = self.redis().await;
        let mut facts = Facts::default();
        for partition in 0..PARTITIONS {
            for (user, balance) in redis.hash(&self.key(partition, "wallets")).await {
                let balance = String::from_utf8(balance).unwrap().parse().unwrap();
                facts.wallets.insert(Uuid::from_slice(&user).unwrap(), balance);
            }
            for packed in redis.hash(&self.key(partition, "payments")).await.into_values() {
                let payment = payment_fact(rmp_serde::from_slice(&packed).unwrap());
                facts.payments.insert(payment.id, payment);
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

    async fn facts_of_mysql(&self) -> Facts {
        let wallets: Vec<(Uuid, i64)> = sqlx::query_as("SELECT user_id, balance FROM wallets")
            .fetch_all(&self.mysql)
            .await
            .unwrap();
        let payments: Vec<PaymentFact> = sqlx::query_as(
            "SELECT id, reservation_id, user_id, queue_id, amount, discount, status, attempt, balance_after FROM payments",
        )
        .fetch_all(&self.mysql)
        .await
        .unwrap();
        let reservations: Vec<ReservationFact> = sqlx::query_as(
            "SELECT id, user_id, queue_id, concert_id, schedule_id, CAST(seats AS CHAR) AS seats, amount, status FROM reservations",
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
        Facts {
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
    })
}

/// With the seats' JSON in one spelling: a server may put spaces in.
fn plain(mut reservation: ReservationFact) -> ReservationFact {
    let seats: serde_json::Value = serde_json::from_str(&reservation.seats).unwrap();
    reservation.seats = seats.to_string();
    reservation
}
