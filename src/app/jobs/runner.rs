//! Works on jobs.

use std::collections::HashMap;
use std::time::Duration;

use futures::StreamExt;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::sql::{self, StoredJob};
use crate::app::domain_services::DomainServices;
use crate::catalogue::{self, ScheduledConcert};
use crate::ids::{JobId, ReservationId};
use crate::payment;
use crate::seats::{Reservation, ReservationStatus};
use crate::store_error::StoreError;

/// How often an instance looks for a job that no instance works on.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// The pause before reservations are tried again that could not be cancelled.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Reservations between two renewals of the lease.
const BATCH_SIZE: usize = 64;
const MAX_CONCURRENT_CANCELLATIONS: usize = 16;
/// A reservation that is refused this often has failed.
const MAX_REFUSALS: u32 = 5;

/// Works on jobs until `stop` is cancelled. A job that it leaves is continued by another instance.
pub(in crate::app) async fn run(services: DomainServices, stop: CancellationToken) {
    let owner = Uuid::from_u128(rand::random());
    let mut ticks = tokio::time::interval(LOOK_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        match sql::claim(&services.mysql, owner).await {
            Ok(None) => {}
            Ok(Some(job)) => {
                let id = JobId::from(job.id);
                let work = ScheduleCancellationWork::new(&services, owner, job, &stop);
                match work.run().await {
                    Ok(Some(status)) => tracing::info!(job = %id, status, "a job has ended"),
                    Ok(None) => {}
                    Err(error) => tracing::warn!(job = %id, %error, "a job was interrupted"),
                }
            }
            Err(error) => tracing::debug!(%error, "could not look for jobs"),
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum InterruptedWork {
    #[error(transparent)]
    Catalogue(#[from] catalogue::Error),
    #[error(transparent)]
    Seats(#[from] crate::seats::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<crate::mysql::Error> for InterruptedWork {
    fn from(error: crate::mysql::Error) -> Self {
        Self::Store(error.into())
    }
}

/// What became of one reservation in one attempt.
enum AttemptOutcome {
    /// It holds no seats any more.
    Done,
    /// It is being paid or a store failed: try again.
    Later,
    Refused(String),
}

/// One turn of an instance on a job that calls off a schedule.
struct ScheduleCancellationWork<'a> {
    services: &'a DomainServices,
    owner: Uuid,
    id: JobId,
    schedule: String,
    total: u32,
    /// How often a reservation was refused.
    refusals: HashMap<ReservationId, u32>,
    stop: &'a CancellationToken,
}

impl<'a> ScheduleCancellationWork<'a> {
    fn new(
        services: &'a DomainServices,
        owner: Uuid,
        job: StoredJob,
        stop: &'a CancellationToken,
    ) -> Self {
        let (id, schedule, total) = (job.id.into(), job.object, job.total);
        Self { services, owner, id, schedule, total, refusals: HashMap::new(), stop }
    }

    /// Works until nothing is left. Returns the status with which the job has ended, or `None` if
    /// another instance continues.
    async fn run(mut self) -> Result<Option<&'static str>, InterruptedWork> {
        loop {
            let left = match self.find_schedule().await? {
                Some(scheduled) => self.services.catalogue.reservations_in_use(&scheduled).await?,
                // It was removed, which is possible only without a seat in use.
                None => Vec::new(),
            };
            let remaining = u32::try_from(left.len()).unwrap_or(u32::MAX);
            self.total = self.total.max(remaining);
            if !self.record(remaining).await? {
                return Ok(None);
            }
            let open: Vec<_> = left.into_iter().filter(|id| !self.has_failed(*id)).collect();
            if open.is_empty() {
                let status = if remaining == 0 { "done" } else { "failed" };
                sql::end(&self.services.mysql, self.id, self.owner, status).await?;
                return Ok(Some(status));
            }
            if !self.cancel_all(&open, remaining).await? {
                return Ok(None);
            }
        }
    }

    async fn find_schedule(&self) -> Result<Option<ScheduledConcert>, InterruptedWork> {
        let Ok(id) = self.schedule.parse() else { return Ok(None) };
        match self.services.catalogue.find_schedule(&id).await {
            Ok(scheduled) => Ok(Some(scheduled)),
            Err(catalogue::Error::NotFound) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Tries each reservation once. Returns false when another instance continues.
    async fn cancel_all(
        &mut self,
        open: &[ReservationId],
        mut remaining: u32,
    ) -> Result<bool, InterruptedWork> {
        let mut has_progress = false;
        for ids in open.chunks(BATCH_SIZE) {
            let reservations = self.services.seats.find_all(ids).await?;
            let missing = ids.iter().filter(|id| !reservations.iter().any(|it| it.id == **id));
            for id in missing {
                self.refuse(*id, "the record is missing");
            }
            let attempts = reservations.iter().map(async |it| (it.id, self.cancel(it).await));
            let attempts: Vec<_> = attempts.collect();
            let outcomes: Vec<_> = futures::stream::iter(attempts)
                .buffer_unordered(MAX_CONCURRENT_CANCELLATIONS)
                .collect()
                .await;
            for (id, outcome) in outcomes {
                match outcome {
                    AttemptOutcome::Done => {
                        remaining = remaining.saturating_sub(1);
                        has_progress = true;
                    }
                    AttemptOutcome::Later => {}
                    AttemptOutcome::Refused(cause) => self.refuse(id, &cause),
                }
            }
            if self.stop.is_cancelled() || !self.record(remaining).await? {
                return Ok(false);
            }
        }
        if !has_progress {
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        Ok(true)
    }

    async fn cancel(&self, reservation: &Reservation) -> AttemptOutcome {
        let services = self.services;
        match reservation.status {
            ReservationStatus::Held => match services.seats.release_hold(reservation).await {
                Ok(true) => AttemptOutcome::Done,
                Ok(false) | Err(_) => AttemptOutcome::Later,
            },
            ReservationStatus::Confirmed => {
                let key = format!("job-{}", self.id);
                match services.payments.cancel_for_organiser(reservation, &key).await {
                    Ok(true) => AttemptOutcome::Done,
                    Ok(false) | Err(payment::Error::Store(_)) => AttemptOutcome::Later,
                    Err(error) => AttemptOutcome::Refused(error.to_string()),
                }
            }
            // A payment ends within seconds.
            ReservationStatus::Paying => AttemptOutcome::Later,
            _ => AttemptOutcome::Refused("it has ended, but its seats are in use".to_owned()),
        }
    }

    fn refuse(&mut self, id: ReservationId, cause: &str) {
        let refusals = self.refusals.entry(id).or_default();
        *refusals += 1;
        if *refusals == MAX_REFUSALS {
            tracing::error!(job = %self.id, reservation = %id, cause, "can't be cancelled");
        }
    }

    fn has_failed(&self, id: ReservationId) -> bool {
        self.refusals.get(&id).is_some_and(|refusals| *refusals >= MAX_REFUSALS)
    }

    /// Returns false when another instance has the lease.
    async fn record(&self, remaining: u32) -> Result<bool, InterruptedWork> {
        let failures = self.refusals.values().filter(|refusals| **refusals >= MAX_REFUSALS);
        let failures = u32::try_from(failures.count()).unwrap_or(u32::MAX);
        let progress = (self.total.saturating_sub(remaining), self.total, failures);
        Ok(sql::record_progress(&self.services.mysql, self.id, self.owner, progress).await?)
    }
}
