//! What operators see of all queues at once: the places of one user, and totals.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use serde::Serialize;
use utoipa::ToSchema;

use super::admin_store::{self as store, FoundPlace, QueueTotals};
use super::{Error, QueueService};
use crate::ids::{QueueId, UserId};
use crate::redis;
use crate::time::UnixMillis;

const MAX_PARALLEL_CALLS: usize = 32;

/// The place of a user in one queue.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UserPlace)]
pub struct UserPlaceDto {
    queue_id: QueueId,
    status: PlaceStatus,
    /// The number behind the place.
    score: u64,
    /// The position in the queue, from 1. Null unless waiting, and while it is not known.
    position: Option<u64>,
    /// The end of the visit. Null unless active.
    active_until: Option<UnixMillis>,
}

#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum PlaceStatus {
    Waiting,
    Active,
}

impl QueueService {
    /// The places of a user in all queues, by queue.
    pub async fn places_of(self: &Arc<Self>, user: UserId) -> Result<Vec<UserPlaceDto>, Error> {
        let queues = self.ids().into_iter();
        let calls: Vec<_> = queues.map(|queue| self.place_of(queue, user)).collect();
        let found: Vec<Option<UserPlaceDto>> =
            futures::stream::iter(calls).buffered(MAX_PARALLEL_CALLS).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    async fn place_of(
        self: &Arc<Self>,
        queue_id: QueueId,
        user: UserId,
    ) -> Result<Option<UserPlaceDto>, Error> {
        let Some(place) = store::find_user(&self.redis, &queue_id, user).await? else {
            return Ok(None);
        };
        let (status, score, until) = match place {
            FoundPlace::Waiting { score } => (PlaceStatus::Waiting, score, None),
            FoundPlace::Active { score, until } => (PlaceStatus::Active, score, Some(until)),
        };
        let position = match status {
            PlaceStatus::Waiting => self.snapshot(&queue_id).await?.reported_position(score, None),
            PlaceStatus::Active => None,
        };
        let active_until = until.map(UnixMillis);
        Ok(Some(UserPlaceDto { queue_id, status, score, position, active_until }))
    }

    /// The sums over all queues.
    pub async fn totals(&self) -> Result<QueueTotals, redis::Error> {
        let queues = self.ids();
        let calls: Vec<_> = queues.iter().map(|queue| store::totals(&self.redis, queue)).collect();
        let counted: Vec<QueueTotals> =
            futures::stream::iter(calls).buffer_unordered(MAX_PARALLEL_CALLS).try_collect().await?;
        Ok(counted.into_iter().fold(QueueTotals::default(), |sum, one| QueueTotals {
            waiting: sum.waiting + one.waiting,
            active: sum.active + one.active,
            holds: sum.holds + one.holds,
            pending: sum.pending + one.pending,
        }))
    }
}
