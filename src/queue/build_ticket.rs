//! Builds the ticket of a user from their membership and a snapshot of the queue.

use std::time::Duration;

use super::estimator::poll_after;
use super::settings::QueueSettings;
use super::snapshot::Snapshot;
use super::store::{LineAfterJoin, MembershipState};
use super::{AdmissionState, Claims, Ticket};

impl Ticket {
    /// When the client should poll again, in milliseconds. `jitter` is from −1 to 1.
    pub fn poll_after_ms(&self, jitter: f64) -> u64 {
        let after = poll_after(
            self.estimated_wait_seconds,
            self.is_unsettled,
            self.claim,
            self.abandon_after,
            jitter,
        );
        u64::try_from(after.as_millis()).unwrap_or(u64::MAX)
    }
}

/// The ticket of a user. `line` is the queue as of a join that is newer than the snapshot.
pub(super) fn build_ticket(
    claims: Claims,
    membership: MembershipState,
    snapshot: &Snapshot,
    line: Option<LineAfterJoin>,
    settings: &QueueSettings,
) -> Ticket {
    let (mut estimated_wait_seconds, mut is_unsettled) = (None, false);
    let admission = match membership {
        MembershipState::Waiting => {
            let front = line.and_then(|line| line.front);
            let position = snapshot.reported_position(claims.score, front);
            if let Some(position) = position {
                let forecast = snapshot.forecast();
                estimated_wait_seconds = forecast.estimated_wait_seconds(position);
                is_unsettled = forecast.is_unsettled();
            }
            AdmissionState::Waiting { position }
        }
        MembershipState::Active { until } => AdmissionState::Active { until },
        MembershipState::Expired => AdmissionState::Expired,
    };
    let mut queue_state = snapshot.state.clone();
    if let (AdmissionState::Waiting { .. }, Some(line)) = (admission, line) {
        // The snapshot may be older than the join.
        queue_state.waiting = line.waiting;
    }
    Ticket {
        claims,
        admission,
        queue_state,
        estimated_wait_seconds,
        is_unsettled,
        claim: Duration::from_secs(settings.claim_seconds.into()),
        abandon_after: settings.abandon_after(),
    }
}
