//! What readers see of an event: the objects of the API.

use std::collections::HashMap;

use serde::Serialize;
use utoipa::ToSchema;

use super::stored_event::{EventBody, EventSubject, StoredEvent};
use super::{Error, EventService};
use crate::coupons::CouponIssueDto;
use crate::ids::{QueueId, ReservationId};
use crate::outbox::event::PromotionEvent;
use crate::outbox::event_type::EventType;
use crate::payment::AdminPaymentDto;
use crate::rewards::{AdminClaimDto, RewardClaim};
use crate::seats::AdminReservationDto;
use crate::time::UnixMillis;
use crate::users::UserNames;
use crate::wallet::AdminLedgerEntryDto;

/// The lane of every user of a queue without lanes.
const DEFAULT_LANE: &str = "default";

/// Something that has happened and is in MySQL.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Event)]
pub struct EventDto {
    /// The same event always has the same id. It can be delivered more than once.
    #[schema(example = "evt-5-1-4711-0")]
    pub id: String,
    pub r#type: EventType,
    /// When it happened, by Redis' clock.
    pub timestamp: UnixMillis,
    pub data: EventData,
}

/// The object as it was after the event.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum EventData {
    /// Of `reservation.confirmed` and `reservation.cancelled`.
    Reservation(Box<AdminReservationDto>),
    /// Of `payment.confirmed`, `payment.refunded` and `payment.refund_due`.
    Payment(Box<AdminPaymentDto>),
    /// Of `wallet.charged` and `wallet.used`.
    Entry(Box<AdminLedgerEntryDto>),
    /// Of `coupon.issued`.
    Issue(Box<CouponIssueDto>),
    /// Of `reward.claimed`.
    Claim(Box<AdminClaimDto>),
    /// Of `queue.admitted`.
    Promotion(PromotionDto),
}

/// Users whom one promotion admitted.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Promotion)]
pub struct PromotionDto {
    queue_id: QueueId,
    /// `default` in a queue without lanes.
    lane: &'static str,
    /// The lowest score of an admitted user.
    from_score: i64,
    /// The highest score of an admitted user.
    to_score: i64,
    /// The number of admitted users.
    count: u32,
}

impl From<PromotionEvent> for PromotionDto {
    fn from(promotion: PromotionEvent) -> Self {
        Self {
            queue_id: promotion.queue,
            lane: DEFAULT_LANE,
            from_score: promotion.from,
            to_score: promotion.to,
            count: promotion.count,
        }
    }
}

impl EventService {
    /// The events as readers see them, with what they are about, in the same order.
    pub(super) async fn render(
        &self,
        events: Vec<StoredEvent>,
    ) -> Result<Vec<(EventSubject, EventDto)>, Error> {
        let names = self.users.names(events.iter().filter_map(|event| event.body.user())).await?;
        let paid: Vec<ReservationId> = events
            .iter()
            .filter_map(|event| match &event.body {
                EventBody::Payment(payment) => Some(payment.reservation),
                _ => None,
            })
            .collect();
        let found = if paid.is_empty() { Vec::new() } else { self.seats.find_all(&paid).await? };
        let reservations: HashMap<ReservationId, _> =
            found.into_iter().map(|reservation| (reservation.id, reservation)).collect();
        let mut rendered = Vec::with_capacity(events.len());
        for StoredEvent { id, kind, at, body } in events {
            let reservation = match &body {
                EventBody::Payment(payment) => reservations.get(&payment.reservation).cloned(),
                _ => None,
            };
            let subject = body.subject();
            let Some(data) = self.data(body, reservation, &names) else {
                tracing::error!(event = %id, "an event can't be shown");
                continue;
            };
            let event = EventDto { id: id.to_string(), r#type: kind, timestamp: at.into(), data };
            rendered.push((subject, event));
        }
        Ok(rendered)
    }

    fn data(
        &self,
        body: EventBody,
        reservation: Option<crate::seats::Reservation>,
        names: &UserNames,
    ) -> Option<EventData> {
        Some(match body {
            EventBody::Reservation(event) => {
                let user = names.of(event.user);
                EventData::Reservation(Box::new(self.seats.dto_of_event(event, user)?))
            }
            EventBody::Payment(event) => {
                let user = names.of(event.user);
                let payment = self.payments.dto_of_event(event, reservation, user);
                EventData::Payment(Box::new(payment))
            }
            EventBody::Entry(event) => {
                let user = names.of(event.user);
                EventData::Entry(Box::new(AdminLedgerEntryDto::of_event(&event, user)))
            }
            EventBody::Issue(issue) => {
                let user = names.of(issue.user);
                EventData::Issue(Box::new(CouponIssueDto::new(issue, user)))
            }
            EventBody::Claim(event) => {
                let user = names.of(event.user);
                let claim = RewardClaim {
                    id: event.id,
                    user: event.user,
                    status: event.status,
                    reason: event.reason,
                    attempts: 1,
                    claimed_at: event.at.timestamp_millis(),
                };
                EventData::Claim(Box::new(AdminClaimDto::new(&event.reward, claim, user)))
            }
            EventBody::Promotion(event) => EventData::Promotion(event.into()),
        })
    }
}
