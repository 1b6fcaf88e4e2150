//! Removes users from a queue, with their holds.

use super::reservation::{Reservation, ReservationStatus};
use super::{Error, SeatService, store};
use crate::ids::{QueueId, UserId};
use crate::queue;

impl SeatService {
    /// Removes a user who waits, or ends the visit and releases its holds. A payment in progress
    /// ends as it would.
    ///
    /// # Errors
    /// [`queue::Error::NotFound`] for an unknown queue, and for a user who neither waits nor is
    /// active nor holds seats.
    pub(super) async fn remove_user(&self, queue: &QueueId, user: UserId) -> Result<(), Error> {
        // A user who is not active can't make further holds.
        let was_there = self.queue.remove_user(queue, user).await?;
        let (now, mut open) = self.open.submit(queue.clone(), user).await?;
        open.retain(|it| it.status == ReservationStatus::Held && it.held_until > now);
        let releases = open.iter().map(|it| store::release(&self.redis, it, user));
        futures::future::try_join_all(releases.collect::<Vec<_>>()).await?;
        self.writer.wake();
        if was_there || !open.is_empty() { Ok(()) } else { Err(queue::Error::NotFound.into()) }
    }

    /// Ends a hold on behalf of an operator. Returns false when it is being paid or is paid.
    ///
    /// # Errors
    /// Those of Redis.
    pub async fn release_hold(&self, held: &Reservation) -> Result<bool, Error> {
        let outcome = store::release(&self.redis, held, held.user).await?;
        self.writer.wake();
        Ok(!matches!(outcome, store::ReleaseOutcome::NotReleasable))
    }
}
