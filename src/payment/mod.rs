//! Payments: a wallet's money for held seats, all or nothing.
//!
//! A payment crosses partitions, so it is a flow of idempotent steps ([`flow`]). The payment and its reservation live in the partition of the
//! queue (`payments`, `reservations`, `q:due`), the money in the partition of the user. MySQL gets a payment when it ends.

mod cancel;
mod cancel_routes;
mod cancel_store;
mod discount;
mod error;
mod flow;
mod record;
mod routes;
mod rules;
mod sql;
mod store;
mod sweep;

use std::sync::Arc;
use std::time::Duration;

use sqlx::MySqlPool;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::coupons::CouponService;
use crate::idempotency::{IdempotencyService, KeyedRequest};
use crate::ids::{IssueId, PaymentId, ReservationId, UserId};
use crate::outbox::WriterHandle;
use crate::partition::Partition;
use crate::queue::{Claims, QueueService};
use crate::redis::{self, Coalescer, RedisClient, ScriptCoalescer, ScriptOperation};
use crate::seats::{Reservation, SeatService};
use crate::telemetry::Metric;
use crate::wallet::WalletService;

pub use error::Error;
pub use record::{Payment, PaymentState};
#[cfg(test)]
pub(crate) use routes::read_bodies;
pub use routes::router;

/// Requests that may wait for one queue in one instance.
const MAX_WAITING: usize = 16_384;
/// A payment is due after so long; then the sweep turns it back. Many times what its steps take.
const DUE: Duration = Duration::from_secs(10);
/// For so long a caller waits for the end before it is told that the payment is pending.
const PATIENCE: Duration = Duration::from_secs(5);

/// A payment as it stands, with what it is for.
#[derive(Debug, Clone)]
pub struct PaymentWithReservation {
    /// The payment.
    pub payment: Payment,
    /// Its reservation.
    pub reservation: Reservation,
    /// The first answer, given again.
    pub replayed: bool,
    /// Whether its end, if it has one, is as durable as answers are set to be.
    pub written: bool,
}

/// What payments are made with.
pub struct PaymentDependencies {
    /// Who stands in line.
    pub queue: Arc<QueueService>,
    /// What is paid for.
    pub seats: Arc<SeatService>,
    /// What is paid with.
    pub wallet: Arc<WalletService>,
    /// What makes it cheaper.
    pub coupons: Arc<CouponService>,
    /// Which requests were made before.
    pub idempotency: Arc<IdempotencyService>,
}

/// What is to be paid.
#[derive(Debug, Clone, Copy)]
pub struct PaymentOrder {
    /// The reservation.
    pub reservation: ReservationId,
    /// The issue of a coupon to be used.
    pub issue: Option<IssueId>,
}

/// The façade of the room.
pub struct PaymentService {
    redis: RedisClient,
    mysql: MySqlPool,
    queue: Arc<QueueService>,
    seats: Arc<SeatService>,
    wallet: Arc<WalletService>,
    coupons: Arc<CouponService>,
    idempotency: Arc<IdempotencyService>,
    nudge: WriterHandle,
    flows: TaskTracker,
    begin: ScriptCoalescer<store::BeginBatch>,
    confirm: ScriptCoalescer<store::ConfirmBatch>,
    read: ScriptCoalescer<store::PaymentReadBatch>,
}

impl PaymentService {
    /// Payments over the other rooms; `nudge` wakes the writer.
    pub fn new(
        redis: RedisClient,
        mysql: MySqlPool,
        rooms: PaymentDependencies,
        nudge: WriterHandle,
    ) -> Self {
        let due_ms = i64::try_from(DUE.as_millis()).unwrap_or(i64::MAX);
        Self {
            begin: Coalescer::new(
                ScriptOperation::new(&redis, store::BeginBatch { due_ms }),
                MAX_WAITING,
            ),
            confirm: Coalescer::new(ScriptOperation::new(&redis, store::ConfirmBatch), MAX_WAITING),
            read: Coalescer::new(
                ScriptOperation::new(&redis, store::PaymentReadBatch),
                MAX_WAITING,
            ),
            flows: TaskTracker::new(),
            redis,
            mysql,
            queue: rooms.queue,
            seats: rooms.seats,
            wallet: rooms.wallet,
            coupons: rooms.coupons,
            idempotency: rooms.idempotency,
            nudge,
        }
    }

    /// Pays a reservation. The flow runs in a task of its own, so a caller who hangs up changes nothing.
    ///
    /// # Errors
    /// [`Error::Unfinished`] when the outcome is not known yet.
    pub async fn pay(
        self: &Arc<Self>,
        claims: Claims,
        order: PaymentOrder,
        keyed: KeyedRequest,
    ) -> Result<PaymentWithReservation, Error> {
        let follow = self.nudge.follow();
        let (begun, mut heard) = oneshot::channel();
        let flow = self.flows.spawn(flow::pay(self.clone(), claims, order, keyed, begun));
        let mut settlement = match tokio::time::timeout(PATIENCE, flow).await {
            Ok(Ok(settled)) => settled?,
            Ok(Err(_)) | Err(_) => {
                let pending = heard
                    .try_recv()
                    .map_err(|_| redis::Error::Unavailable("the payment goes on".into()))?;
                return Err(Error::Unfinished(Box::new(pending)));
            }
        };
        if !settlement.replayed {
            count(&settlement.payment);
        }
        match rules::verdict(&settlement.payment) {
            rules::PaymentVerdict::Paid => {
                let Payment { reservation, user, issue, .. } = settlement.payment;
                settlement.written = follow.written(&self.touched(reservation, user, issue)).await;
                Ok(settlement)
            }
            rules::PaymentVerdict::Insufficient => Err(Error::InsufficientBalance),
            rules::PaymentVerdict::CouponNotApplicable => Err(Error::CouponNotApplicable),
            rules::PaymentVerdict::TurnedBack => Err(Error::TurnedBack),
            rules::PaymentVerdict::Unknown => Err(Error::Unfinished(Box::new(settlement))),
        }
    }

    /// The partitions in which the payment of a reservation leaves events: the queue's, the user's and the coupon's.
    fn touched(
        &self,
        reservation: ReservationId,
        user: UserId,
        issue: Option<IssueId>,
    ) -> Vec<Partition> {
        let slots =
            [reservation.slot(), user.slot()].into_iter().chain(issue.map(|issue| issue.slot()));
        slots.map(|slot| self.redis.keys().partition(slot)).collect()
    }

    /// Cancels a reservation that was bought. It runs in a task of its own, so a caller who hangs up changes nothing.
    async fn cancel(
        self: &Arc<Self>,
        id: ReservationId,
        keyed: KeyedRequest,
    ) -> Result<cancel::PaymentCancellation, Error> {
        let follow = self.nudge.follow();
        let flow = self.flows.spawn(cancel::cancel(self.clone(), id, keyed));
        let mut cancelling = match tokio::time::timeout(PATIENCE, flow).await {
            Ok(Ok(outcome)) => outcome?,
            Ok(Err(_)) | Err(_) => {
                return Err(redis::Error::Unavailable("the cancelling goes on".into()).into());
            }
        };
        if cancelling.is_done() {
            let issue = cancelling.payment.as_ref().and_then(|payment| payment.issue);
            let touched = self.touched(id, cancelling.reservation.user, issue);
            cancelling.written = follow.written(&touched).await;
        }
        Ok(cancelling)
    }

    /// A payment of the user.
    pub async fn find(&self, id: PaymentId, user: UserId) -> Result<PaymentWithReservation, Error> {
        let partition = self.redis.keys().partition(id.slot());
        let (payment, reservation) = match self.read.submit(partition, id).await? {
            Some((payment, reservation)) => (payment, reservation),
            None => (sql::one(&self.mysql, id).await?.ok_or(Error::NotFound)?, None),
        };
        if payment.user != user {
            return Err(Error::NotFound);
        }
        let reservation = match reservation {
            Some(reservation) => reservation,
            None => self.seats.find(payment.reservation, user).await?.1,
        };
        let written =
            self.nudge.has(partition, payment.n) || self.nudge.follow().written(&[partition]).await;
        Ok(PaymentWithReservation { payment, reservation, replayed: false, written })
    }

    /// Drops a partition's payments that have ended, that MySQL has by its checkpoint, and that ended `keep` ago. Gives how many.
    pub async fn retire(
        &self,
        partition: Partition,
        checkpoint: u64,
        keep: Duration,
    ) -> Result<u64, redis::Error> {
        let (mut cursor, mut dropped) = ("0".to_owned(), 0);
        loop {
            let part = store::retire(&self.redis, partition, &cursor, checkpoint, keep).await?;
            dropped += part.dropped;
            let Some(next) = part.next else { return Ok(dropped) };
            cursor = next;
        }
    }

    /// Drives overdue payments to an end, until `stop`.
    pub async fn run_sweep(self: Arc<Self>, stop: CancellationToken) {
        sweep::run(&self, stop).await;
    }

    /// Waits until every flow that runs has come to its end. Call it once no request comes in any more.
    pub async fn drain(&self) {
        self.flows.close();
        self.flows.wait().await;
    }
}

fn count(payment: &Payment) {
    let status = match payment.state {
        PaymentState::Pending | PaymentState::Voiding => "pending",
        PaymentState::Confirmed => "confirmed",
        PaymentState::Refunding => "refunding",
        PaymentState::Declined => "declined",
        PaymentState::Voided => "voided",
        PaymentState::Refunded => "refunded",
    };
    Metric::PaymentsTotal.counter(&[("status", status)]).increment(1);
}
