//! The demo data of `usher seed demo` and `usher dev`.

#![expect(clippy::disallowed_methods, reason = "the dates of the demo are relative to today")]

use chrono::{TimeDelta, Utc};

use super::domain_services::DomainServices;
use super::error::Error;
use crate::catalogue::{ConcertDefinition, ConcertSchedule, SeatSection};
use crate::coupon_terms::DiscountKind;
use crate::coupons::CouponDefinition;
use crate::definition::ChangePreconditions;
use crate::http::merge_patch::DefinitionChange;
use crate::ids::{CouponId, QueueId, RewardCode};
use crate::money::Money;
use crate::queue::QueueSettings;
use crate::rewards::{ComparisonOperator, RewardCondition, RewardDefinition, RewardKind};

/// The id of both the concert and its queue.
const CONCERT_ID: &str = "demo";
const SCHEDULE_ID: &str = "demo-1";
const COUPON_ID: &str = "demo-coupon";
const REWARD_CODE: &str = "demo-reward";

/// Stores what is missing. Existing definitions stay unchanged.
pub(super) async fn seed(services: &DomainServices) -> Result<(), Error> {
    let (Ok(concert), Ok(schedule), Ok(queue)) =
        (CONCERT_ID.parse(), SCHEDULE_ID.parse(), CONCERT_ID.parse::<QueueId>())
    else {
        return Ok(());
    };
    let always = ChangePreconditions::default();
    if services.queue.settings(&queue).is_none() {
        let settings =
            QueueSettings { promote_per_interval: 50, max_active: 200, ..QueueSettings::default() };
        services.queue.change(&queue, DefinitionChange::Replace(settings), &always).await?;
    }
    if services.catalogue.concert(&concert).is_none() {
        let section = |name: &str, from, to, price| {
            Some(SeatSection { name: name.to_owned(), from, to, price: Money::new(price)? })
        };
        let sections = [section("Front", 1, 10, 15_000), section("Back", 11, 50, 9_000)];
        let starts_at = Utc::now() + TimeDelta::days(30);
        let schedule = ConcertSchedule {
            id: schedule,
            starts_at,
            booking_opens_at: None,
            booking_closes_at: None,
            sections: sections.into_iter().flatten().collect(),
        };
        let definition = ConcertDefinition {
            title: "Usher's first night".to_owned(),
            queue_id: Some(queue),
            hold_seconds: None,
            payment_seconds: None,
            max_seats_per_user: None,
            cancel_until: None,
            schedules: vec![schedule],
        };
        let change = DefinitionChange::Replace(definition);
        services.catalogue.change(&concert, change, &always).await?;
    }
    seed_coupon(services).await?;
    seed_reward(services).await
}

async fn seed_coupon(services: &DomainServices) -> Result<(), Error> {
    let (Ok(id), Some(amount), Some(min_available_amount)) =
        (COUPON_ID.parse::<CouponId>(), Money::new(2_000), Money::new(5_000))
    else {
        return Ok(());
    };
    if services.coupons.coupon(&id).is_none() {
        let definition = CouponDefinition {
            id: None,
            r#type: None,
            title: "2,000 off the first night".to_owned(),
            total_quantity: Some(500),
            discount_kind: DiscountKind::Amount,
            discount_amount: Some(amount),
            discount_percent: None,
            discount_limit: None,
            min_available_amount,
            valid_seconds: None,
            valid_until: None,
            issue_starts_at: Utc::now() - TimeDelta::days(1),
            issue_ends_at: Utc::now() + TimeDelta::days(30),
        };
        let always = ChangePreconditions::default();
        services.coupons.change(&id, DefinitionChange::Replace(definition), &always).await?;
    }
    Ok(())
}

async fn seed_reward(services: &DomainServices) -> Result<(), Error> {
    let (Ok(code), Some(amount)) = (REWARD_CODE.parse::<RewardCode>(), Money::new(500)) else {
        return Ok(());
    };
    if services.rewards.reward(&code).is_none() {
        let condition = RewardCondition {
            fact: "reservations_confirmed".to_owned(),
            op: ComparisonOperator::AtLeast,
            value: 1,
        };
        let definition = RewardDefinition {
            code: None,
            title: "A thank-you for the first booking".to_owned(),
            starts_at: Utc::now() - TimeDelta::days(1),
            ends_at: Utc::now() + TimeDelta::days(30),
            active: true,
            conditions: vec![condition],
            reward: RewardKind::Points { amount },
            revocable: false,
        };
        let always = ChangePreconditions::default();
        services.rewards.change(&code, DefinitionChange::Replace(definition), &always).await?;
    }
    Ok(())
}
