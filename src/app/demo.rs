//! The demo data: what `usher seed demo` and `usher dev` put in. Putting it in again changes nothing.

use chrono::{TimeDelta, Utc};

use super::{Error, Rooms};
use crate::catalogue::{Concert, Schedule, Section};
use crate::ids::QueueId;
use crate::money::Money;
use crate::queue::Settings;

/// The name of the demo concert and its queue.
pub(super) const CONCERT: &str = "demo";
/// The name of its one date.
pub(super) const SCHEDULE: &str = "demo-1";

/// Puts in what is missing of the demo data; what is there stays as it is.
pub(super) async fn seed(rooms: &Rooms) -> Result<(), Error> {
    let (Ok(concert), Ok(schedule), Ok(queue)) =
        (CONCERT.parse(), SCHEDULE.parse(), CONCERT.parse::<QueueId>())
    else {
        return Ok(());
    };
    if rooms.queue.settings(&queue).is_none() {
        let settings = Settings { promote_per_interval: 50, max_active: 200, ..Settings::default() };
        rooms.queue.put(&queue, settings).await?;
    }
    if rooms.catalogue.concert(&concert).is_none() {
        let section = |name: &str, from, to, price| {
            Some(Section { name: name.to_owned(), from, to, price: Money::new(price)? })
        };
        let sections = [section("Front", 1, 10, 15_000), section("Back", 11, 50, 9_000)];
        let starts_at = Utc::now() + TimeDelta::days(30);
        let schedule = Schedule {
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
    Ok(())
}
