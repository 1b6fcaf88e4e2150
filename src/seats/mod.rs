//! Seats and reservations: seats are held for a limited time, then sold or free again.
//!
//! The seats of a schedule are in the partition of its concert's queue. Redis stores
//! - `s:seats`: which reservation has a seat, and until when,
//! - `reservations`: the reservations,
//! - `q:owners`: the open reservations of each user,
//! - `q:bought`: how many seats each user has bought,
//! - `q:holds`: when each hold expires, for the sweep.
//!
//! A hold expires when Redis' clock passes its deadline. From then on its seats are free, also
//! before the sweep has recorded it. MySQL gets a reservation when it is confirmed, released or
//! expired.
//!
//! Start reading with [`SeatService::hold`] and `lua/seats/hold.lua`.

mod admin_routes;
mod archive;
mod archive_store;
mod best;
mod best_store;
mod dto;
mod error;
mod idempotent_hold;
mod list_routes;
mod lists;
mod map_routes;
mod open_store;
mod prune;
mod queue_routes;
mod queue_users;
mod reservation;
mod routes;
mod rules;
mod schedule_routes;
mod seat_count_store;
mod seat_map_cache;
mod seat_statuses;
mod seat_stream_source;
mod sql;
mod store;
mod stream_routes;

use std::sync::Arc;
use std::time::Duration;

use sqlx::MySqlPool;
use tokio_util::sync::CancellationToken;

use crate::catalogue::{CatalogueService, ScheduledConcert};
use crate::idempotency::{IdempotencyService, KeyedRequest};
use crate::ids::{ConcertId, QueueId, ReservationId, ScheduleId, UserId};
use crate::money::CurrencyCode;
use crate::outbox::WriterHandle;
use crate::queue::{Claims, QueueService};
use crate::redis::{self, Coalescer, RedisClient, ScriptCoalescer, ScriptOperation};
use crate::telemetry::Metric;

pub use admin_routes::{AdminReservationDto, admin_router};
pub use dto::ReservationDto;
pub use error::Error;
pub use idempotent_hold::HeldReservation;
use idempotent_hold::HoldId;
pub use reservation::{Reservation, ReservationStatus, ReservedSeat};
#[cfg(test)]
pub(crate) use routes::read_bodies;
pub use routes::router;
use seat_statuses::SeatStatuses;

/// Requests of one kind that may wait for one schedule in one instance.
const MAX_WAITING_REQUESTS: usize = 16_384;
const SWEEP_INTERVAL: Duration = Duration::from_millis(500);
/// Expired holds recorded in one call.
const SWEEP_PAGE_SIZE: u32 = 256;
/// A hold is retried when the concert changes at the same time.
const MAX_HOLD_ATTEMPTS: u32 = 3;

/// All operations on seats. One value per process, shared by all requests.
pub struct SeatService {
    redis: RedisClient,
    mysql: MySqlPool,
    queue: Arc<QueueService>,
    catalogue: Arc<CatalogueService>,
    idempotency: Arc<IdempotencyService>,
    writer: WriterHandle,
    currency: CurrencyCode,
    holds: ScriptCoalescer<store::HoldBatch>,
    best: ScriptCoalescer<best_store::BestSearchBatch>,
    read: ScriptCoalescer<store::ReservationReadBatch>,
    open: ScriptCoalescer<store::OpenReservationsBatch>,
    map: Coalescer<store::SeatMapBatch>,
    counts: ScriptCoalescer<seat_count_store::SeatCountBatch>,
    seat_maps: seat_map_cache::SeatMapCache,
    streams: seat_stream_source::SeatStreamSources,
}

impl SeatService {
    pub fn new(
        redis: RedisClient,
        mysql: MySqlPool,
        queue: Arc<QueueService>,
        catalogue: Arc<CatalogueService>,
        idempotency: Arc<IdempotencyService>,
        writer: WriterHandle,
        currency: CurrencyCode,
    ) -> Self {
        Self {
            holds: Coalescer::new(
                ScriptOperation::new(&redis, store::HoldBatch),
                MAX_WAITING_REQUESTS,
            ),
            best: Coalescer::new(
                ScriptOperation::new(&redis, best_store::BestSearchBatch),
                MAX_WAITING_REQUESTS,
            ),
            read: Coalescer::new(
                ScriptOperation::new(&redis, store::ReservationReadBatch),
                MAX_WAITING_REQUESTS,
            ),
            open: Coalescer::new(
                ScriptOperation::new(&redis, store::OpenReservationsBatch),
                MAX_WAITING_REQUESTS,
            ),
            counts: Coalescer::new(
                ScriptOperation::new(&redis, seat_count_store::SeatCountBatch),
                MAX_WAITING_REQUESTS,
            ),
            map: Coalescer::new(store::SeatMapBatch(redis.clone()), MAX_WAITING_REQUESTS),
            seat_maps: seat_map_cache::SeatMapCache::default(),
            streams: seat_stream_source::SeatStreamSources::default(),
            redis,
            mysql,
            queue,
            catalogue,
            idempotency,
            writer,
            currency,
        }
    }

    /// Holds all of the seats or none. With an idempotency key, a repeated request returns the
    /// same reservation in its current state.
    pub async fn hold(
        &self,
        claims: &Claims,
        schedule: &ScheduleId,
        numbers: &[u32],
        keyed: Option<KeyedRequest>,
    ) -> Result<HeldReservation, Error> {
        match self.hold_id(claims, keyed).await? {
            HoldId::Existing(held) => Ok(*held),
            HoldId::New { id, keyed } => {
                let outcome = self.try_hold(claims, schedule, numbers, (id, keyed)).await;
                count_hold(&outcome);
                outcome
            }
        }
    }

    async fn try_hold(
        &self,
        claims: &Claims,
        schedule: &ScheduleId,
        numbers: &[u32],
        (id, keyed): (ReservationId, bool),
    ) -> Result<HeldReservation, Error> {
        for _ in 0..MAX_HOLD_ATTEMPTS {
            let scheduled = self.bookable_schedule(claims, schedule).await?;
            let max_seats = scheduled.concert.max_seats_per_user;
            let (seats, amount) = rules::price_seats(scheduled.schedule(), numbers, max_seats)
                .map_err(|refusal| match refusal {
                    rules::SeatRefusal::Invalid(message) => Error::InvalidField("seats", message),
                    rules::SeatRefusal::LimitExceeded => Error::LimitExceeded(max_seats),
                })?;
            let detail =
                serde_json::to_string(&seats).map_err(|e| redis::Error::Protocol(e.to_string()))?;
            let hold = store::Hold {
                id,
                user: claims.user,
                score: claims.score,
                amount,
                detail,
                numbers: numbers.to_vec(),
                keyed,
            };
            let outcome = match self.holds.submit(store::HoldTerms::of(&scheduled), hold).await {
                // Redis has another version of the concert than this instance.
                Err(redis::Error::NotPublished) => {
                    Box::pin(self.catalogue.refresh(&scheduled.concert)).await?;
                    continue;
                }
                other => other?,
            };
            return match outcome {
                store::HoldOutcome::Held { now, held_until } => {
                    let reservation = Reservation {
                        id,
                        user: claims.user,
                        queue: claims.queue.clone(),
                        concert: scheduled.concert.id.clone(),
                        schedule: schedule.clone(),
                        seats,
                        amount,
                        status: ReservationStatus::Held,
                        held_until,
                        created_at: now,
                        title: Some(scheduled.concert.title.clone()),
                        starts_at: Some(scheduled.schedule().starts_at.timestamp_millis()),
                        payment: None,
                        paid: None,
                        discount: None,
                        cancellations: Vec::new(),
                    };
                    Ok(HeldReservation { reservation, now, replayed: false })
                }
                store::HoldOutcome::Repeated => self.repeated(id, claims.user).await,
                store::HoldOutcome::SeatsTaken { seats, yours } => {
                    Err(Error::SeatsTaken { seats, yours })
                }
                store::HoldOutcome::LimitExceeded => Err(Error::LimitExceeded(max_seats)),
                store::HoldOutcome::NotOpen => Err(Error::BookingNotOpen),
                store::HoldOutcome::VisitOver => Err(Error::VisitOver),
                store::HoldOutcome::Waiting => {
                    Err(crate::queue::Error::NotAdmitted { poll_after_ms: 1_000 }.into())
                }
                store::HoldOutcome::SlotExpired => Err(crate::queue::Error::TokenExpired.into()),
            };
        }
        Err(redis::Error::NotPublished.into())
    }

    /// A schedule of a concert that the token's queue admits to.
    async fn schedule_of(
        &self,
        claims: &Claims,
        schedule: &ScheduleId,
    ) -> Result<ScheduledConcert, Error> {
        let scheduled = self.catalogue.find_schedule(schedule).await?;
        if scheduled.concert.queue == claims.queue { Ok(scheduled) } else { Err(Error::WrongQueue) }
    }

    /// Like [`Self::schedule_of`], but refuses an archived concert and a date that is called off.
    async fn bookable_schedule(
        &self,
        claims: &Claims,
        schedule: &ScheduleId,
    ) -> Result<ScheduledConcert, Error> {
        let scheduled = self.schedule_of(claims, schedule).await?;
        let is_over = scheduled.concert.archived || scheduled.is_cancelled();
        if is_over { Err(Error::BookingNotOpen) } else { Ok(scheduled) }
    }

    /// Ends a hold, so that its seats are free. Succeeds also for a hold that has ended.
    pub async fn release(&self, id: ReservationId, user: UserId) -> Result<(), Error> {
        let (_, reservation) = self.find(id, user).await?;
        self.release_found(&reservation).await
    }

    async fn release_found(&self, reservation: &Reservation) -> Result<(), Error> {
        match store::release(&self.redis, reservation, reservation.user).await? {
            store::ReleaseOutcome::Released => {
                self.writer.wake();
                Ok(())
            }
            store::ReleaseOutcome::NotReleasable => Err(Error::NotReleasable),
            // It has ended and was pruned from Redis. The status is from MySQL.
            store::ReleaseOutcome::NotFound => match reservation.status {
                ReservationStatus::Released | ReservationStatus::Expired => Ok(()),
                _ => Err(Error::NotReleasable),
            },
        }
    }

    /// A reservation of the user, with Redis' clock in milliseconds since 1970.
    pub async fn find(&self, id: ReservationId, user: UserId) -> Result<(i64, Reservation), Error> {
        let (now, reservation) = self.find_any(id).await?;
        if reservation.user == user { Ok((now, reservation)) } else { Err(Error::NotFound) }
    }

    /// As [`Self::find`], of any user.
    pub async fn find_any(&self, id: ReservationId) -> Result<(i64, Reservation), Error> {
        let partition = self.redis.keys().partition(id.slot());
        let (now, found) = self.read.submit(partition, id).await?;
        let reservation = match found {
            Some(reservation) => Some(reservation),
            None => sql::one(&self.mysql, id).await?,
        };
        reservation.map(|reservation| (now, reservation)).ok_or(Error::NotFound)
    }

    /// Those of the reservations that exist, from Redis or MySQL.
    pub async fn find_all(&self, ids: &[ReservationId]) -> Result<Vec<Reservation>, Error> {
        let reads = ids.iter().map(|id| {
            let partition = self.redis.keys().partition(id.slot());
            self.read.submit(partition, *id)
        });
        let read = futures::future::try_join_all(reads).await?;
        let mut found: Vec<Reservation> = Vec::new();
        let mut missing = Vec::new();
        for (id, (_, reservation)) in ids.iter().zip(read) {
            match reservation {
                Some(reservation) => found.push(reservation),
                None => missing.push(*id),
            }
        }
        found.extend(sql::many(&self.mysql, &missing).await?);
        Ok(found)
    }

    /// Redis' clock in milliseconds since 1970, and the schedules of a concert, for active users.
    async fn schedules_of(
        &self,
        claims: &Claims,
        concert: &ConcertId,
    ) -> Result<(i64, Vec<ScheduledConcert>), Error> {
        let concert = self.catalogue.find_concert(concert).await?;
        if concert.queue != claims.queue {
            return Err(Error::WrongQueue);
        }
        self.queue.require_active(claims).await?;
        let now = self.redis.clock(self.redis.keys().partition(claims.queue.slot())).await?;
        Ok((now, ScheduledConcert::all(&concert)))
    }

    /// One schedule, for active users.
    async fn admitted_schedule(
        &self,
        claims: &Claims,
        schedule: &ScheduleId,
    ) -> Result<ScheduledConcert, Error> {
        let scheduled = self.schedule_of(claims, schedule).await?;
        self.queue.require_active(claims).await?;
        Ok(scheduled)
    }

    /// The schedules of all concerts of a queue.
    pub fn schedules_in_queue(&self, queue: &QueueId) -> Arc<[ScheduleId]> {
        self.catalogue.schedules_in_queue(queue)
    }

    /// Until when a confirmed reservation can be cancelled, in milliseconds since 1970. `None` when
    /// its schedule was removed or its concert is archived.
    pub fn cancel_until(&self, reservation: &Reservation) -> Option<i64> {
        let scheduled = self.catalogue.schedule(&reservation.schedule)?;
        if scheduled.concert.archived {
            return None;
        }
        let until = scheduled.concert.cancel_until.unwrap_or(scheduled.schedule().starts_at);
        Some(until.timestamp_millis())
    }

    /// For how long an external payment of this reservation may wait, in milliseconds. The concert
    /// may be archived since.
    pub fn payment_ms(&self, reservation: &Reservation) -> i64 {
        const DEFAULT_SECONDS: u32 = 600;
        let scheduled = self.catalogue.schedule(&reservation.schedule);
        let seconds =
            scheduled.map_or(DEFAULT_SECONDS, |scheduled| scheduled.concert.payment_seconds);
        i64::from(seconds) * 1_000
    }

    /// Records expired holds, until `stop` is cancelled.
    pub async fn run_sweep(self: Arc<Self>, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            for queue in self.queue.recently_busy() {
                match store::expire(&self.redis, &queue, SWEEP_PAGE_SIZE).await {
                    Err(redis::Error::Recovering(_)) => {}
                    Ok(swept) => {
                        let labels = [("queue", queue.as_str())];
                        Metric::SeatsForSale.gauge(&labels).set(swept.for_sale as f64);
                        Metric::SeatsSold.gauge(&labels).set(swept.sold as f64);
                        Metric::ReservationsHeld.gauge(&labels).set(swept.held as f64);
                        Metric::ReservationsExpiredTotal.counter(&[]).increment(swept.expired);
                        if swept.expired > 0 {
                            self.writer.wake();
                            self.free_lapsed(&queue, &swept.lapsed).await;
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%queue, %error, "recording expired holds failed");
                    }
                }
            }
        }
    }
}

fn count_hold(outcome: &Result<HeldReservation, Error>) {
    let label = match outcome {
        Ok(_) => "held",
        Err(Error::SeatsTaken { .. } | Error::NotEnoughSeats) => "taken",
        Err(_) => "refused",
    };
    Metric::HoldsTotal.counter(&[("outcome", label)]).increment(1);
}
