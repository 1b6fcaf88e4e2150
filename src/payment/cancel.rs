//! Cancelling what was bought: the flow backwards.
//!
//! ```text
//! begin_cancel ─→ give_back ─→ cancelled
//! ```
//!
//! `begin_cancel` is the commit point: it compares and sets `confirmed → cancelling`, and the payment's `confirmed → refunding`. From there on each step
//! can be taken by anybody, twice or late: the wallet gives back once under an op of its own, and only then are the seats free. A cancelling that stays behind is
//! past its due time and driven to its end by the sweep ([`resume`]). `tests/model` takes these steps, under these names, in every order.

use std::sync::Arc;

use super::record::{Payment, PaymentState};
use super::{Error, PaymentService, cancel_store as store, discount, sql};
use crate::idempotency::{BindOutcome, KeyedRequest};
use crate::ids::ReservationId;
use crate::redis;
use crate::seats::{Reservation, ReservationStatus};

/// A reservation that is cancelled, or will be.
#[derive(Debug)]
pub(super) struct PaymentCancellation {
    /// Redis' clock.
    pub(super) now: i64,
    /// As it stands.
    pub(super) reservation: Reservation,
    /// What bought it, as far as Redis tells.
    pub(super) payment: Option<Payment>,
    /// The first answer, given again.
    pub(super) replayed: bool,
    /// Whether its end is as durable as answers are set to be.
    pub(super) written: bool,
}

impl PaymentCancellation {
    /// Whether it has come to its end.
    pub(super) fn is_done(&self) -> bool {
        self.reservation.status == ReservationStatus::Cancelled
    }
}

/// Cancels a reservation, from the key to its end, or as far as the stores answer.
pub(super) async fn cancel(
    on: Arc<PaymentService>,
    id: ReservationId,
    keyed: KeyedRequest,
) -> Result<PaymentCancellation, Error> {
    let replayed = match on.idempotency.bind(keyed.clone(), *id.as_bytes()).await? {
        BindOutcome::Now => false,
        BindOutcome::Before(_) => true,
        BindOutcome::Elsewhere => return Err(Error::KeyReused),
    };
    let outcome = step_by_step(&on, id, &keyed, replayed).await;
    if let Err(Error::NotFound | Error::NotCancellable | Error::CancellationClosed) = outcome {
        on.idempotency.release(&keyed, *id.as_bytes()).await?;
    }
    outcome
}

async fn step_by_step(
    on: &PaymentService,
    id: ReservationId,
    keyed: &KeyedRequest,
    replayed: bool,
) -> Result<PaymentCancellation, Error> {
    let answer = |now, reservation, payment| PaymentCancellation {
        now,
        reservation,
        payment,
        replayed,
        written: true,
    };
    let (now, reservation) = on.seats.find(id, keyed.user).await?;
    match begin_cancel(on, &reservation, keyed).await? {
        store::BeginCancelOutcome::Pending(now, payment, reservation) => {
            let done = finish(on, &payment, &reservation).await;
            let (now, reservation) = done.unwrap_or_else(|error| {
                tracing::warn!(payment = %payment.id, %error, "a cancelling is left to the sweep");
                (now, reservation)
            });
            Ok(answer(now, reservation, Some(payment)))
        }
        // Cancelled by this very request before, or by its twin a moment ago.
        store::BeginCancelOutcome::Cancelled(now, payment, reservation) => {
            Ok(answer(now, reservation, payment))
        }
        store::BeginCancelOutcome::NotKept
            if replayed && reservation.status == ReservationStatus::Cancelled =>
        {
            Ok(answer(now, reservation, None))
        }
        store::BeginCancelOutcome::NotBought | store::BeginCancelOutcome::NotKept => {
            Err(Error::NotCancellable)
        }
        store::BeginCancelOutcome::TooLate => Err(Error::CancellationClosed),
    }
}

/// Step 1, the commit point. Of what Redis keeps no more MySQL tells what was bought.
async fn begin_cancel(
    on: &PaymentService,
    reservation: &Reservation,
    keyed: &KeyedRequest,
) -> Result<store::BeginCancelOutcome, Error> {
    let closes = on.seats.cancel_until(reservation).unwrap_or(0);
    match store::begin_cancel(&on.redis, reservation, closes, keyed, None).await? {
        store::BeginCancelOutcome::NotKept
            if reservation.status == ReservationStatus::Confirmed =>
        {
            let Some(payment) = sql::confirmed_of(&on.mysql, reservation.id).await? else {
                return Ok(store::BeginCancelOutcome::NotKept);
            };
            Ok(store::begin_cancel(&on.redis, reservation, closes, keyed, Some(&payment)).await?)
        }
        begun => Ok(begun),
    }
}

/// Steps 2 and 3.
async fn finish(
    on: &PaymentService,
    payment: &Payment,
    reservation: &Reservation,
) -> Result<(i64, Reservation), redis::Error> {
    give_back(on, payment).await?;
    let (now, payment, reservation) = store::finish_cancel(&on.redis, payment, reservation)
        .await?
        .ok_or_else(|| redis::Error::Protocol("a cancelling that began is gone".into()))?;
    on.nudge.poke();
    super::count(&payment);
    Ok((now, reservation))
}

/// Step 2: everything that the payment took goes back here, each thing under an op of its own.
async fn give_back(on: &PaymentService, payment: &Payment) -> Result<(), redis::Error> {
    discount::give_back(on, payment).await?;
    let attempt = (payment.id, payment.attempt);
    if on.wallet.give_back(payment.user, attempt, payment.created_at, payment.to_pay()).await? {
        Ok(())
    } else {
        Err(redis::Error::Unavailable("the wallet can't take back yet what it gave".into()))
    }
}

/// Drives an overdue cancelling to its end.
pub(super) async fn resume(
    on: &PaymentService,
    payment: &Payment,
) -> Result<Payment, redis::Error> {
    let partition = on.redis.keys().partition(payment.id.slot());
    let gone = || redis::Error::Protocol("a cancelling that began is gone".into());
    let (payment, reservation) = on.read.submit(partition, payment.id).await?.ok_or_else(gone)?;
    if payment.state == PaymentState::Refunding {
        finish(on, &payment, &reservation.ok_or_else(gone)?).await?;
    }
    Ok(payment)
}
