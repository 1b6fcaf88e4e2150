//! Holds with an idempotency key: which reservation a request is about.

use crate::idempotency::{BindOutcome, KeyedRequest};
use crate::ids::{ReservationId, UserId};
use crate::queue::Claims;

use super::reservation::Reservation;
use super::{Error, SeatService};

/// The answer to a hold.
#[derive(Debug, Clone)]
pub struct HeldReservation {
    pub reservation: Reservation,
    /// The time of the answer, in milliseconds since 1970.
    pub now: i64,
    /// Whether an earlier request with the same idempotency key made it.
    pub replayed: bool,
}

/// Which reservation a hold is about.
pub(super) enum HoldId {
    New { id: ReservationId, keyed: bool },
    Existing(Box<HeldReservation>),
}

impl SeatService {
    /// The id of the reservation that a request makes, or the reservation that an earlier request
    /// with the same key has made. A key stays bound to its id when the hold is refused: a repeated
    /// request tries again under the same id.
    pub(super) async fn hold_id(
        &self,
        claims: &Claims,
        keyed: Option<KeyedRequest>,
    ) -> Result<HoldId, Error> {
        let id = ReservationId::new(claims.queue.slot());
        let Some(keyed) = keyed else { return Ok(HoldId::New { id, keyed: false }) };
        match self.idempotency.bind(keyed, *id.as_bytes()).await? {
            BindOutcome::Bound => Ok(HoldId::New { id, keyed: true }),
            BindOutcome::AlreadyBound(bytes) => {
                let id = ReservationId::from_slice(&bytes).unwrap_or(id);
                match self.find(id, claims.user).await {
                    Ok((now, reservation)) => {
                        let held = HeldReservation { reservation, now, replayed: true };
                        Ok(HoldId::Existing(Box::new(held)))
                    }
                    Err(Error::NotFound) => Ok(HoldId::New { id, keyed: true }),
                    Err(error) => Err(error),
                }
            }
            BindOutcome::OtherRequest => Err(Error::KeyReused),
        }
    }

    /// The reservation that another request with the same key has made meanwhile.
    pub(super) async fn repeated(
        &self,
        id: ReservationId,
        user: UserId,
    ) -> Result<HeldReservation, Error> {
        let (now, reservation) = self.find(id, user).await?;
        Ok(HeldReservation { reservation, now, replayed: true })
    }
}
