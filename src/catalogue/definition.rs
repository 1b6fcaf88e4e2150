//! The definition of a concert, as the admin API takes and returns it.

use std::collections::BTreeSet;

use chrono::{DateTime, SubsecRound, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Concert, ConcertSchedule, rules};
use crate::definition::{AdminDefinition, DefinitionViolation};
use crate::ids::{ConcertId, QueueId};

const DEFAULT_HOLD_SECONDS: u32 = 300;
const DEFAULT_PAYMENT_SECONDS: u32 = 600;
const DEFAULT_SEATS_PER_USER: u32 = 4;

/// The definition of a concert.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConcertDefinition {
    /// 1–255 characters.
    pub title: String,
    /// The queue that admits users to the concert. It is created if it does not exist. Default:
    /// the queue with the id of the concert.
    pub queue_id: Option<QueueId>,
    /// How long a hold lasts, in seconds, 1…86,400. Default: 300.
    pub hold_seconds: Option<u32>,
    /// For how long a payment by an external provider keeps its seats, in seconds, 60…3,600.
    /// Default: 600.
    pub payment_seconds: Option<u32>,
    /// How many seats a user can hold and own in total, 1…100. Default: 4.
    pub max_seats_per_user: Option<u32>,
    /// Confirmed reservations can be cancelled until this time. Null means until the show starts.
    pub cancel_until: Option<DateTime<Utc>>,
    /// The dates of the concert, each with its seats. At most 400 dates with at most 20,000
    /// sections in all.
    pub schedules: Vec<ConcertSchedule>,
}

impl AdminDefinition for ConcertDefinition {
    const KIND: &'static str = "concerts";
}

impl ConcertDefinition {
    /// The definition with every default in its place, as the admin API returns it.
    ///
    /// # Errors
    /// The rules that the definition breaks.
    pub fn normal_form(self, id: &ConcertId) -> Result<Self, Vec<DefinitionViolation>> {
        self.validate(id).map(|concert| Self::from(&concert))
    }

    /// # Errors
    /// The rules that the definition breaks.
    pub(super) fn validate(self, id: &ConcertId) -> Result<Concert, Vec<DefinitionViolation>> {
        let concert = self.into_concert(id).map_err(|found| vec![found])?;
        let violations = rules::violations(&concert);
        if violations.is_empty() { Ok(concert) } else { Err(violations) }
    }

    /// The concert, in the form that MySQL stores: times in milliseconds, schedules by their start.
    fn into_concert(self, id: &ConcertId) -> Result<Concert, DefinitionViolation> {
        let own_queue = || {
            let parsed = id.as_str().parse();
            parsed.map_err(|_| DefinitionViolation::new("queue_id", "must be given"))
        };
        let mut schedules = self.schedules;
        for schedule in &mut schedules {
            schedule.starts_at = schedule.starts_at.trunc_subsecs(3);
            schedule.booking_opens_at = millis(schedule.booking_opens_at);
            schedule.booking_closes_at = millis(schedule.booking_closes_at);
        }
        Ok(Concert {
            id: id.clone(),
            version: 0,
            title: self.title,
            queue: self.queue_id.map_or_else(own_queue, Ok)?,
            hold_seconds: self.hold_seconds.unwrap_or(DEFAULT_HOLD_SECONDS),
            payment_seconds: self.payment_seconds.unwrap_or(DEFAULT_PAYMENT_SECONDS),
            max_seats_per_user: self.max_seats_per_user.unwrap_or(DEFAULT_SEATS_PER_USER),
            cancel_until: millis(self.cancel_until),
            archived: false,
            cancelled: BTreeSet::new(),
            schedules,
        })
    }
}

fn millis(time: Option<DateTime<Utc>>) -> Option<DateTime<Utc>> {
    time.map(|time| time.trunc_subsecs(3))
}

impl From<&Concert> for ConcertDefinition {
    fn from(concert: &Concert) -> Self {
        let mut schedules = concert.schedules.clone();
        schedules.sort_by(|one, other| (one.starts_at, &one.id).cmp(&(other.starts_at, &other.id)));
        Self {
            title: concert.title.clone(),
            queue_id: Some(concert.queue.clone()),
            hold_seconds: Some(concert.hold_seconds),
            payment_seconds: Some(concert.payment_seconds),
            max_seats_per_user: Some(concert.max_seats_per_user),
            cancel_until: concert.cancel_until,
            schedules,
        }
    }
}
