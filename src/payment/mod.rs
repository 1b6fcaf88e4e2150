//! Payments: money of a wallet for held seats.
//!
//! A payment changes several partitions, so it is a sequence of idempotent steps. Where one server
//! has all partitions, a plain payment is one call that leaves the same. The payment and
//! its reservation are in the partition of the queue (`payments`, `reservations`, `q:due`), the
//! money is in the partition of the user, and a coupon is in its own partition. MySQL gets a
//! payment when it ends.
//!
//! Start reading with `flow.rs` (the steps of a payment), then `cancel.rs` (the steps of a
//! cancellation) and `sweep.rs`, which finishes what was interrupted.

mod admin_routes;
mod cancel;
mod cancel_routes;
mod cancel_store;
mod discount;
mod error;
mod external;
mod external_routes;
mod external_store;
mod flow;
mod lists;
mod pay_store;
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
use crate::money::Money;
use crate::outbox::WriterHandle;
use crate::partition::Partition;
use crate::queue::{Claims, QueueService};
use crate::redis::{self, Coalescer, RedisClient, ScriptCoalescer, ScriptOperation};
use crate::seats::{Reservation, SeatService};
use crate::telemetry::Metric;
use crate::wallet::WalletService;

pub use admin_routes::{AdminPaymentDto, admin_router};
pub use error::Error;
pub use record::{Payment, PaymentState};
#[cfg(test)]
pub(crate) use routes::read_bodies;
pub use routes::{PaymentDto, router};
pub use rules::ProviderProof;

/// Requests of one kind that may wait for one queue in one instance.
const MAX_WAITING_REQUESTS: usize = 16_384;
/// The sweep voids a payment that is pending for this time. Its steps take a fraction of it.
const PAYMENT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a request waits for the outcome before the response is "pending".
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Clone)]
pub struct PaymentWithReservation {
    pub payment: Payment,
    /// `None` for a hold that was lost with Redis after its payment had failed.
    pub reservation: Option<Reservation>,
    /// Whether this repeats the outcome of an earlier request with the same idempotency key.
    pub replayed: bool,
    /// Whether the outcome, if there is one, is as durable as configured.
    pub is_durable: bool,
}

/// The services that payments use.
pub struct PaymentDependencies {
    pub queue: Arc<QueueService>,
    pub seats: Arc<SeatService>,
    pub wallet: Arc<WalletService>,
    pub coupons: Arc<CouponService>,
    pub idempotency: Arc<IdempotencyService>,
}

/// What to pay.
#[derive(Debug, Clone, Copy)]
pub struct PaymentOrder {
    pub reservation: ReservationId,
    /// The coupon issue to redeem.
    pub issue: Option<IssueId>,
    /// What the user expects to pay.
    pub expected: Option<Money>,
    /// The part that the wallet pays, if a provider pays the rest. `None`: the wallet pays all.
    pub wallet_amount: Option<Money>,
}

/// All operations on payments. One value per process, shared by all requests.
pub struct PaymentService {
    redis: RedisClient,
    mysql: MySqlPool,
    queue: Arc<QueueService>,
    seats: Arc<SeatService>,
    wallet: Arc<WalletService>,
    coupons: Arc<CouponService>,
    idempotency: Arc<IdempotencyService>,
    writer: WriterHandle,
    flows: TaskTracker,
    pay: Coalescer<pay_store::PayOperation>,
    begin: ScriptCoalescer<store::BeginBatch>,
    confirm: ScriptCoalescer<store::ConfirmBatch>,
    read: ScriptCoalescer<store::PaymentReadBatch>,
}

impl PaymentService {
    pub fn new(
        redis: RedisClient,
        mysql: MySqlPool,
        dependencies: PaymentDependencies,
        writer: WriterHandle,
    ) -> Self {
        let due_ms = i64::try_from(PAYMENT_TIMEOUT.as_millis()).unwrap_or(i64::MAX);
        Self {
            pay: Coalescer::new(
                pay_store::PayOperation { redis: redis.clone() },
                MAX_WAITING_REQUESTS,
            ),
            begin: Coalescer::new(
                ScriptOperation::new(&redis, store::BeginBatch { due_ms }),
                MAX_WAITING_REQUESTS,
            ),
            confirm: Coalescer::new(
                ScriptOperation::new(&redis, store::ConfirmBatch),
                MAX_WAITING_REQUESTS,
            ),
            read: Coalescer::new(
                ScriptOperation::new(&redis, store::PaymentReadBatch),
                MAX_WAITING_REQUESTS,
            ),
            flows: TaskTracker::new(),
            redis,
            mysql,
            queue: dependencies.queue,
            seats: dependencies.seats,
            wallet: dependencies.wallet,
            coupons: dependencies.coupons,
            idempotency: dependencies.idempotency,
            writer,
        }
    }

    /// Pays for a reservation. The steps run in a separate task, so they continue when the client
    /// closes the connection.
    ///
    /// # Errors
    /// [`Error::OutcomePending`] when the outcome is not known yet.
    pub async fn pay(
        self: &Arc<Self>,
        claims: Claims,
        order: PaymentOrder,
        keyed: KeyedRequest,
    ) -> Result<PaymentWithReservation, Error> {
        let durability = self.writer.start_durability_wait();
        let (pending_sender, mut pending) = oneshot::channel();
        let flow = self.flows.spawn(flow::pay(self.clone(), claims, order, keyed, pending_sender));
        let mut outcome = match tokio::time::timeout(RESPONSE_TIMEOUT, flow).await {
            Ok(Ok(outcome)) => outcome?,
            Ok(Err(_)) | Err(_) => {
                let pending = pending
                    .try_recv()
                    .map_err(|_| redis::Error::Unavailable("the payment is in progress".into()))?;
                return Err(Error::OutcomePending(Box::new(pending)));
            }
        };
        if !outcome.replayed {
            count_payment(&outcome.payment);
        }
        match rules::verdict(&outcome.payment) {
            rules::PaymentVerdict::Paid | rules::PaymentVerdict::Awaited => {
                let Payment { reservation, user, issue, .. } = outcome.payment;
                let partitions = self.event_partitions(reservation, user, issue);
                outcome.is_durable = durability.wait_until_written(&partitions).await;
                Ok(outcome)
            }
            rules::PaymentVerdict::InsufficientBalance => Err(Error::InsufficientBalance),
            rules::PaymentVerdict::CouponNotApplicable => Err(Error::CouponNotApplicable),
            rules::PaymentVerdict::AmountChanged => {
                Err(Error::AmountChanged(outcome.payment.to_pay()))
            }
            rules::PaymentVerdict::CouponExpired => Err(Error::CouponExpired),
            rules::PaymentVerdict::NothingDue => Err(Error::NothingDue),
            rules::PaymentVerdict::TooManyPending => Err(Error::TooManyPending),
            rules::PaymentVerdict::Voided => Err(Error::Voided),
            rules::PaymentVerdict::Pending => Err(Error::OutcomePending(Box::new(outcome))),
        }
    }

    /// The partitions in which the payment of a reservation writes events: those of the queue, the
    /// user and the coupon.
    fn event_partitions(
        &self,
        reservation: ReservationId,
        user: UserId,
        issue: Option<IssueId>,
    ) -> Vec<Partition> {
        let slots =
            [reservation.slot(), user.slot()].into_iter().chain(issue.map(|issue| issue.slot()));
        slots.map(|slot| self.redis.keys().partition(slot)).collect()
    }

    /// Cancels some or all seats of a confirmed reservation. The steps run in a separate task, so
    /// they continue when the client closes the connection.
    async fn cancel(
        self: &Arc<Self>,
        id: ReservationId,
        seats: Option<Vec<u32>>,
        keyed: KeyedRequest,
        closes_at: Option<i64>,
    ) -> Result<cancel::PaymentCancellation, Error> {
        let durability = self.writer.start_durability_wait();
        let flow = self.flows.spawn(cancel::cancel(self.clone(), id, seats, keyed, closes_at));
        let mut cancellation = match tokio::time::timeout(RESPONSE_TIMEOUT, flow).await {
            Ok(Ok(outcome)) => outcome?,
            Ok(Err(_)) | Err(_) => {
                let message = "the cancellation is in progress".into();
                return Err(redis::Error::Unavailable(message).into());
            }
        };
        if cancellation.is_done {
            let issue = cancellation.payment.as_ref().and_then(|payment| payment.issue);
            let partitions = self.event_partitions(id, cancellation.reservation.user, issue);
            cancellation.is_durable = durability.wait_until_written(&partitions).await;
        }
        Ok(cancellation)
    }

    /// Cancels all seats that are left of a reservation on behalf of the organiser. Calls with one
    /// key have one effect. Returns whether the money is refunded and the seats are free.
    ///
    /// # Errors
    /// [`Error::NotCancellable`] for a reservation that is not confirmed.
    pub async fn cancel_for_organiser(
        &self,
        reservation: &Reservation,
        key: &str,
    ) -> Result<bool, Error> {
        Box::pin(cancel::cancel_for_organiser(self, reservation, key)).await
    }

    /// A payment of the user, from Redis or MySQL.
    pub async fn find(&self, id: PaymentId, user: UserId) -> Result<PaymentWithReservation, Error> {
        self.find_of(id, Some(user)).await
    }

    /// A payment, from Redis or MySQL. With an owner, only the owner's.
    async fn find_of(
        &self,
        id: PaymentId,
        owner: Option<UserId>,
    ) -> Result<PaymentWithReservation, Error> {
        let found = self.load(id, owner).await?;
        let partition = self.redis.keys().partition(id.slot());
        let is_durable = self.writer.is_written(partition, found.payment.n)
            || self.writer.start_durability_wait().wait_until_written(&[partition]).await;
        Ok(PaymentWithReservation { is_durable, ..found })
    }

    /// Runs the steps of a call for an external payment in a separate task, so they continue when
    /// the client closes the connection.
    async fn run_external(
        &self,
        steps: impl Future<Output = Result<PaymentWithReservation, Error>> + Send + 'static,
    ) -> Result<PaymentWithReservation, Error> {
        let durability = self.writer.start_durability_wait();
        let mut outcome =
            match tokio::time::timeout(RESPONSE_TIMEOUT, self.flows.spawn(steps)).await {
                Ok(Ok(outcome)) => outcome?,
                Ok(Err(_)) | Err(_) => {
                    return Err(redis::Error::Unavailable("the call is in progress".into()).into());
                }
            };
        let Payment { reservation, user, issue, .. } = outcome.payment;
        let partitions = self.event_partitions(reservation, user, issue);
        outcome.is_durable = durability.wait_until_written(&partitions).await;
        Ok(outcome)
    }

    /// Confirms an external payment: its provider has taken the money. With `owner`, only a payment
    /// of this user.
    async fn confirm_external(
        self: &Arc<Self>,
        id: PaymentId,
        owner: Option<UserId>,
        proof: ProviderProof,
    ) -> Result<PaymentWithReservation, Error> {
        self.run_external(external::confirm(self.clone(), id, owner, proof)).await
    }

    /// Voids an external payment that waits for its provider.
    async fn void_external(
        self: &Arc<Self>,
        id: PaymentId,
        owner: Option<UserId>,
        reason: String,
    ) -> Result<PaymentWithReservation, Error> {
        self.run_external(external::void(self.clone(), id, owner, reason)).await
    }

    /// Records that the provider has paid money back.
    async fn report_refund(
        self: &Arc<Self>,
        id: PaymentId,
        owner: Option<UserId>,
        reference: String,
        amount: Money,
    ) -> Result<PaymentWithReservation, Error> {
        self.run_external(external::report_refund(self.clone(), id, owner, reference, amount)).await
    }

    /// Removes from Redis the payments of a partition that ended at least `keep` ago and that MySQL
    /// has according to its checkpoint. Returns their number.
    pub async fn prune_ended(
        &self,
        partition: Partition,
        checkpoint: u64,
        keep: Duration,
    ) -> Result<u64, redis::Error> {
        let (mut cursor, mut pruned) = ("0".to_owned(), 0);
        loop {
            let page = store::prune(&self.redis, partition, &cursor, checkpoint, keep).await?;
            pruned += page.dropped;
            let Some(next) = page.next else { return Ok(pruned) };
            cursor = next;
        }
    }

    /// Finishes overdue payments, until `stop` is cancelled.
    pub async fn run_sweep(self: Arc<Self>, stop: CancellationToken) {
        sweep::run(&self, stop).await;
    }

    /// Waits for all running payments and cancellations. Call it after the last request has
    /// arrived.
    pub async fn drain(&self) {
        self.flows.close();
        self.flows.wait().await;
    }
}

/// Counts the outcome of a confirmation of an external payment.
fn count_confirmation(outcome: &Result<PaymentWithReservation, Error>) {
    let word = match outcome {
        Ok(PaymentWithReservation { replayed: false, .. }) => "confirmed",
        Ok(_) => "repeated",
        Err(Error::PaymentVoided) => "payment_voided",
        Err(Error::AlreadyConfirmed) => "already_confirmed",
        Err(Error::ReferenceUsed) => "reference_used",
        Err(Error::AmountMismatch(_)) => "amount_mismatch",
        Err(_) => "other",
    };
    Metric::ExternalConfirmationsTotal.counter(&[("outcome", word)]).increment(1);
}

fn count_payment(payment: &Payment) {
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
