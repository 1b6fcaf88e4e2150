//! The demo data: what `usher seed demo` and `usher dev` put in. Putting it in again changes nothing.

#![expect(clippy::disallowed_methods, reason = "the demo's calendar begins today")]

use chrono::{TimeDelta, Utc};

use super::{DomainServices, Error};
use crate::catalogue::{Concert, ConcertSchedule, SeatSection};
use crate::coupons::Coupon;
use crate::ids::{CouponId, QueueId, RewardCode};
use crate::money::Money;
use crate::queue::QueueSettings;
use crate::rewards::{ComparisonOperator, Reward, RewardCondition, RewardKind};

/// The name of the demo concert and its queue.
pub(super) const CONCERT: &str = "demo";
/// The name of its one date.
pub(super) const SCHEDULE: &str = "demo-1";
/// The name of the demo coupon.
pub(super) const COUPON: &str = "demo-coupon";
/// The name of the demo reward.
pub(super) const REWARD: &str = "demo-reward";

/// Puts in what is missing of the demo data; what is there stays as it is.
pub(super) async fn seed(rooms: &DomainServices) -> Result<(), Error> {
    let (Ok(concert), Ok(schedule), Ok(queue)) =
        (CONCERT.parse(), SCHEDULE.parse(), CONCERT.parse::<QueueId>())
    else {
        return Ok(());
    };
    if rooms.queue.settings(&queue).is_none() {
        let settings =
            QueueSettings { promote_per_interval: 50, max_active: 200, ..QueueSettings::default() };
        rooms.queue.put(&queue, settings).await?;
    }
    if rooms.catalogue.concert(&concert).is_none() {
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
        let concert = Concert {
            id: concert,
            version: 0,
            title: "Usher's first night".to_owned(),
            queue,
            hold_seconds: 300,
            max_seats_per_user: 4,
            cancel_until: None,
            archived: false,
            schedules: vec![schedule],
        };
        rooms.catalogue.put(concert).await?;
    }
    seed_coupon(rooms).await?;
    seed_reward(rooms).await
}

/// Five hundred coupons of 2,000 off.
async fn seed_coupon(rooms: &DomainServices) -> Result<(), Error> {
    let (Ok(id), Some(discount_amount), Some(min_available_amount)) =
        (COUPON.parse::<CouponId>(), Money::new(2_000), Money::new(5_000))
    else {
        return Ok(());
    };
    if rooms.coupons.coupon(&id).is_none() {
        let coupon = Coupon {
            id,
            version: 0,
            title: "2,000 off the first night".to_owned(),
            total_quantity: Some(500),
            discount_amount,
            min_available_amount,
            issue_starts_at: Utc::now() - TimeDelta::days(1),
            issue_ends_at: Utc::now() + TimeDelta::days(30),
        };
        rooms.coupons.put(coupon).await?;
    }
    Ok(())
}

/// 500 points for whoever has bought a seat.
async fn seed_reward(rooms: &DomainServices) -> Result<(), Error> {
    let (Ok(code), Some(amount)) = (REWARD.parse::<RewardCode>(), Money::new(500)) else {
        return Ok(());
    };
    if rooms.rewards.reward(&code).is_none() {
        let condition = RewardCondition {
            fact: "reservations_confirmed".to_owned(),
            op: ComparisonOperator::AtLeast,
            value: 1,
        };
        let reward = Reward {
            code,
            version: 0,
            title: "A thank-you for the first booking".to_owned(),
            starts_at: Utc::now() - TimeDelta::days(1),
            ends_at: Utc::now() + TimeDelta::days(30),
            active: true,
            conditions: vec![condition],
            gift: RewardKind::Points { amount },
        };
        rooms.rewards.put(reward).await?;
    }
    Ok(())
}
