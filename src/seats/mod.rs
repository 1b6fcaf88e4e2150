//! Seats: held for a while, then free again or sold.
//!
//! A schedule's seats live in the partition of its concert's queue. `s:seats` says which reservation has a seat and until when; `reservations` holds the
//! reservations, `q:owners` the open ones of each user, `q:bought` how many seats a user owns, `q:holds` the deadlines for the sweep. A hold lapses
//! when Redis' clock passes its deadline; the sweep only writes that down. MySQL gets a reservation when it ends: confirmed, released or expired.

mod archive;
mod archive_store;
mod best;
mod best_store;
mod error;
mod list_routes;
mod lists;
mod reservation;
mod retire;
mod routes;
mod rules;
mod sql;
mod store;
mod view;

use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::MySqlPool;
use tokio_util::sync::CancellationToken;

use crate::catalogue::{CatalogueService, ScheduledConcert};
use crate::ids::{ConcertId, ReservationId, ScheduleId, UserId};
use crate::outbox::WriterHandle;
use crate::queue::{Claims, QueueService};
use crate::redis::{self, Coalescer, RedisClient, ScriptCoalescer, ScriptOperation};
use crate::telemetry::Metric;
use crate::time::UnixMillis;

pub use error::Error;
pub use list_routes::admin_router;
pub use reservation::{Reservation, ReservationStatus, ReservedSeat};
#[cfg(test)]
pub(crate) use routes::read_bodies;
pub use routes::{ReservationDto, router};

/// Requests that may wait for one schedule in one instance.
const MAX_WAITING: usize = 16_384;
/// How often lapsed holds are written down.
const SWEEP: Duration = Duration::from_millis(500);
/// Lapsed holds written down in one call.
const SWEPT: u32 = 256;
/// How often a hold is tried against a concert that changes under it.
const TRIES: u32 = 3;

/// The façade of the room.
pub struct SeatService {
    redis: RedisClient,
    mysql: MySqlPool,
    queue: Arc<QueueService>,
    catalogue: Arc<CatalogueService>,
    nudge: WriterHandle,
    holds: ScriptCoalescer<store::HoldBatch>,
    best: ScriptCoalescer<best_store::BestSearchBatch>,
    read: ScriptCoalescer<store::ReservationReadBatch>,
    open: ScriptCoalescer<store::OpenReservationsBatch>,
    map: Coalescer<store::SeatMapBatch>,
    views: view::SeatMapCache,
}

impl SeatService {
    /// Seats in Redis; `nudge` wakes the writer.
    pub fn new(
        redis: RedisClient,
        mysql: MySqlPool,
        queue: Arc<QueueService>,
        catalogue: Arc<CatalogueService>,
        nudge: WriterHandle,
    ) -> Self {
        Self {
            holds: Coalescer::new(ScriptOperation::new(&redis, store::HoldBatch), MAX_WAITING),
            best: Coalescer::new(
                ScriptOperation::new(&redis, best_store::BestSearchBatch),
                MAX_WAITING,
            ),
            read: Coalescer::new(
                ScriptOperation::new(&redis, store::ReservationReadBatch),
                MAX_WAITING,
            ),
            open: Coalescer::new(
                ScriptOperation::new(&redis, store::OpenReservationsBatch),
                MAX_WAITING,
            ),
            map: Coalescer::new(store::SeatMapBatch(redis.clone()), MAX_WAITING),
            views: view::SeatMapCache::default(),
            redis,
            mysql,
            queue,
            catalogue,
            nudge,
        }
    }

    /// Holds all the seats or none.
    pub async fn hold(
        &self,
        claims: &Claims,
        schedule: &ScheduleId,
        numbers: &[u32],
    ) -> Result<Reservation, Error> {
        let outcome = self.try_hold(claims, schedule, numbers).await;
        count(&outcome);
        outcome
    }

    async fn try_hold(
        &self,
        claims: &Claims,
        schedule: &ScheduleId,
        numbers: &[u32],
    ) -> Result<Reservation, Error> {
        for _ in 0..TRIES {
            let date = self.bookable(claims, schedule)?;
            let max_seats = date.concert.max_seats_per_user;
            let (seats, amount) = rules::choose(date.schedule(), numbers, max_seats).map_err(
                |refusal| match refusal {
                    rules::SeatRefusal::Unsound(why) => Error::Unsound("seats", why),
                    rules::SeatRefusal::Limit => Error::LimitExceeded(max_seats),
                },
            )?;
            let detail =
                serde_json::to_string(&seats).map_err(|e| redis::Error::Protocol(e.to_string()))?;
            let id = ReservationId::new(claims.queue.slot());
            let hold = store::Hold {
                id,
                user: claims.user,
                score: claims.score,
                amount,
                detail,
                numbers: numbers.to_vec(),
            };
            let held = match self.holds.submit(store::HoldTerms::of(&date), hold).await {
                Err(redis::Error::NotLaid) => {
                    Box::pin(self.catalogue.renew(&date.concert)).await?;
                    continue;
                }
                other => other?,
            };
            return match held {
                store::HoldOutcome::Done { now, held_until } => Ok(Reservation {
                    id,
                    user: claims.user,
                    queue: claims.queue.clone(),
                    concert: date.concert.id.clone(),
                    schedule: schedule.clone(),
                    seats,
                    amount,
                    status: ReservationStatus::Held,
                    held_until,
                    created_at: now,
                }),
                store::HoldOutcome::Taken(numbers) => Err(Error::Taken(numbers)),
                store::HoldOutcome::LimitExceeded => Err(Error::LimitExceeded(max_seats)),
                store::HoldOutcome::NotOpen => Err(Error::BookingNotOpen),
                store::HoldOutcome::Waiting => {
                    Err(crate::queue::Error::NotAdmitted { poll_after_ms: 1_000 }.into())
                }
                store::HoldOutcome::SlotGone => Err(crate::queue::Error::TokenExpired.into()),
            };
        }
        Err(redis::Error::NotLaid.into())
    }

    /// A date of a concert that the token's queue admits to.
    fn date(&self, claims: &Claims, schedule: &ScheduleId) -> Result<ScheduledConcert, Error> {
        let date = self.catalogue.date(schedule).ok_or(Error::NotFound)?;
        if date.concert.queue == claims.queue { Ok(date) } else { Err(Error::WrongQueue) }
    }

    /// The same, as long as its sale is not over for good.
    fn bookable(&self, claims: &Claims, schedule: &ScheduleId) -> Result<ScheduledConcert, Error> {
        let date = self.date(claims, schedule)?;
        if date.concert.archived { Err(Error::BookingNotOpen) } else { Ok(date) }
    }

    /// Gives a hold back at once.
    pub async fn release(&self, id: ReservationId, user: UserId) -> Result<(), Error> {
        let (_, reservation) = self.find(id, user).await?;
        match store::release(&self.redis, &reservation, user).await? {
            store::ReleaseOutcome::Done => {
                self.nudge.poke();
                Ok(())
            }
            store::ReleaseOutcome::NotReleasable => Err(Error::NotReleasable),
            // Redis keeps it no more, so it has ended, and MySQL knows how.
            store::ReleaseOutcome::NotFound => match reservation.status {
                ReservationStatus::Released | ReservationStatus::Expired => Ok(()),
                _ => Err(Error::NotReleasable),
            },
        }
    }

    /// A reservation of the user, with Redis' clock.
    pub async fn find(&self, id: ReservationId, user: UserId) -> Result<(i64, Reservation), Error> {
        let partition = self.redis.keys().partition(id.slot());
        let (now, found) = self.read.submit(partition, id).await?;
        let reservation = match found {
            Some(reservation) => Some(reservation),
            None => sql::one(&self.mysql, id).await?,
        };
        reservation
            .filter(|reservation| reservation.user == user)
            .map(|reservation| (now, reservation))
            .ok_or(Error::NotFound)
    }

    /// The dates of a concert, for an active holder of its queue's token.
    async fn dates(
        &self,
        claims: &Claims,
        concert: &ConcertId,
    ) -> Result<Vec<ScheduledConcert>, Error> {
        let concert = self.catalogue.concert(concert).ok_or(Error::NotFound)?;
        if concert.queue != claims.queue {
            return Err(Error::WrongQueue);
        }
        self.queue.require_active(claims).await?;
        Ok(ScheduledConcert::all_of(&concert))
    }

    /// One date, for an active holder of its queue's token.
    async fn admitted_date(
        &self,
        claims: &Claims,
        schedule: &ScheduleId,
    ) -> Result<ScheduledConcert, Error> {
        let date = self.date(claims, schedule)?;
        self.queue.require_active(claims).await?;
        Ok(date)
    }

    /// Until when a bought reservation can be cancelled, milliseconds since 1970; `None` when its date is gone.
    pub fn cancel_until(&self, reservation: &Reservation) -> Option<i64> {
        let date =
            self.catalogue.date(&reservation.schedule).filter(|date| !date.concert.archived)?;
        let until = date.concert.cancel_until.unwrap_or(date.schedule().starts_at);
        Some(until.timestamp_millis())
    }

    /// The title of a reservation's concert and when its show starts. Empty for a concert that is gone.
    pub fn title_and_start(&self, reservation: &Reservation) -> (String, Option<UnixMillis>) {
        let title = self
            .catalogue
            .concert(&reservation.concert)
            .map(|concert| concert.title.clone())
            .unwrap_or_default();
        let date = self.catalogue.date(&reservation.schedule);
        (title, date.map(|date| date.schedule().starts_at.into()))
    }

    /// Which seats of a date are not available; for a crowd as of a moment ago.
    async fn taken(
        &self,
        date: &ScheduledConcert,
    ) -> Result<Arc<Vec<store::UnavailableSeat>>, Error> {
        let schedule = date.schedule();
        let hall = store::SeatMapScope {
            queue: date.concert.queue.clone(),
            schedule: schedule.id.clone(),
            seats: schedule.seats(),
        };
        let now = Instant::now();
        if let Some(taken) = self.views.look(&hall, now) {
            return Ok(taken);
        }
        let taken = if date.concert.archived {
            let sold = sql::sold(&self.mysql, &hall.schedule).await?;
            sold.into_iter()
                .map(|number| store::UnavailableSeat { number, sold: true })
                .collect::<Vec<_>>()
                .into()
        } else {
            self.map.submit(hall.clone(), ()).await?
        };
        self.views.keep(&hall, now, &taken);
        Ok(taken)
    }

    /// Writes lapsed holds down, until `stop`.
    pub async fn run_sweep(self: Arc<Self>, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(SWEEP);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            for queue in self.queue.ids() {
                match store::expire(&self.redis, &queue, SWEPT).await {
                    Err(redis::Error::Recovering(_)) => {}
                    Ok(swept) => {
                        let labels = [("queue", queue.as_str())];
                        Metric::SeatsForSale.gauge(&labels).set(swept.for_sale as f64);
                        Metric::SeatsSold.gauge(&labels).set(swept.sold as f64);
                        Metric::ReservationsHeld.gauge(&labels).set(swept.held as f64);
                        Metric::ReservationsExpiredTotal.counter(&[]).increment(swept.expired);
                        if swept.expired > 0 {
                            self.nudge.poke();
                        }
                    }
                    Err(error) => tracing::warn!(%queue, %error, "sweeping lapsed holds"),
                }
            }
        }
    }
}

fn count(outcome: &Result<Reservation, Error>) {
    let word = match outcome {
        Ok(_) => "held",
        Err(Error::Taken(_) | Error::NotEnough) => "taken",
        Err(_) => "refused",
    };
    Metric::HoldsTotal.counter(&[("outcome", word)]).increment(1);
}
