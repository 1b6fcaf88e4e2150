//! Time to restore a hundred thousand reservations. Run it alone: `cargo test --test it
//! a_hundred_thousand -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use serde_json::json;
use sqlx::QueryBuilder;
use usher::ids::{EntryId, PaymentId, QueueId, ReservationId, UserId};
use uuid::Uuid;

use crate::recovery::restore::{generations, queue_without_window, wait_until_serving};
use crate::support::{TestStores, TestWorld, eventually, new_user};

const CONCERTS: u32 = 10;
const SEATS: u32 = 10_000;
const PRICE: i64 = 1_000;

struct LargeSale {
    user: UserId,
    queue: QueueId,
    schedule: String,
    seat: u32,
    reservation: Uuid,
    payment: Uuid,
}

/// Inserts the rows that as many purchases, of one seat by one user each, leave in MySQL.
async fn sell(stores: &TestStores) {
    let now = chrono::Utc::now().naive_utc();
    for concert in 0..CONCERTS {
        let queue: QueueId = format!("c{concert}").parse().unwrap();
        let sales: Vec<LargeSale> = (1..=SEATS)
            .map(|seat| LargeSale {
                user: Uuid::new_v4().into(),
                schedule: format!("c{concert}-1"),
                seat,
                reservation: ReservationId::new(queue.slot()).uuid(),
                payment: PaymentId::new(queue.slot()).uuid(),
                queue: queue.clone(),
            })
            .collect();
        for some in sales.chunks(1_000) {
            let mut sql = QueryBuilder::new(
                "INSERT INTO reservations (id, user_id, queue_id, concert_id, schedule_id, seats, \
                     amount, status, held_until, created_at, updated_at, score) ",
            );
            sql.push_values(some, |mut row, it| {
                let seats =
                    json!([{"number": it.seat, "section": "A", "price": PRICE}]).to_string();
                row.push_bind(it.reservation)
                    .push_bind(it.user.uuid())
                    .push_bind(it.queue.as_str());
                row.push_bind(it.queue.as_str())
                    .push_bind(&it.schedule)
                    .push_bind(seats)
                    .push_bind(PRICE);
                row.push_bind("confirmed")
                    .push_bind(now)
                    .push_bind(now)
                    .push_bind(now)
                    .push_bind(1_i64 << 40);
            });
            sql.build().execute(&stores.mysql).await.unwrap();
            let mut sql = QueryBuilder::new(
                "INSERT INTO reservation_seats (schedule_id, seat_number, reservation_id) ",
            );
            sql.push_values(some, |mut row, it| {
                row.push_bind(&it.schedule).push_bind(it.seat).push_bind(it.reservation);
            });
            sql.build().execute(&stores.mysql).await.unwrap();
            let mut sql = QueryBuilder::new(
                "INSERT INTO payments (id, reservation_id, user_id, queue_id, amount, discount, \
                     status, attempt, balance_after, created_at, settled_at, user_slot, \
                     idempotency_key, fingerprint) ",
            );
            sql.push_values(some, |mut row, it| {
                row.push_bind(it.payment).push_bind(it.reservation).push_bind(it.user.uuid());
                row.push_bind(it.queue.as_str())
                    .push_bind(PRICE)
                    .push_bind(0_i64)
                    .push_bind("confirmed");
                row.push_bind(1)
                    .push_bind(PRICE)
                    .push_bind(now)
                    .push_bind(now)
                    .push_bind(it.user.slot().get());
                row.push_bind(it.payment.simple().to_string())
                    .push_bind(&it.payment.as_bytes()[..]);
            });
            sql.build().execute(&stores.mysql).await.unwrap();
            let mut sql = QueryBuilder::new(
                "INSERT INTO wallets (user_id, slot, balance, updated_at, paid_total, paid_count) ",
            );
            sql.push_values(some, |mut row, it| {
                row.push_bind(it.user.uuid())
                    .push_bind(it.user.slot().get())
                    .push_bind(PRICE)
                    .push_bind(now)
                    .push_bind(PRICE)
                    .push_bind(1);
            });
            sql.build().execute(&stores.mysql).await.unwrap();
            let mut sql = QueryBuilder::new(
                "INSERT INTO wallet_entries (id, user_id, position, kind, amount, balance, \
                     created_at, payment_id, attempt, idempotency_key, fingerprint) ",
            );
            let entries = some.iter().flat_map(|it| [(it, true), (it, false)]);
            sql.push_values(entries, |mut row, (it, charge)| {
                row.push_bind(EntryId::new(it.user.slot()).uuid()).push_bind(it.user.uuid());
                row.push_bind(if charge { 1 } else { 2 }).push_bind(if charge {
                    "charge"
                } else {
                    "payment"
                });
                row.push_bind(if charge { 2 * PRICE } else { PRICE });
                row.push_bind(if charge { 2 * PRICE } else { PRICE }).push_bind(now);
                row.push_bind((!charge).then_some(it.payment)).push_bind((!charge).then_some(1));
                row.push_bind(charge.then(|| it.reservation.simple().to_string()));
                row.push_bind(charge.then(|| &it.payment.as_bytes()[..]));
            });
            sql.build().execute(&stores.mysql).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute of the whole machine"]
async fn a_hundred_thousand_reservations_are_restored_within_a_minute() {
    let world = TestWorld::on(TestStores::with_own_redis().await, 1).await;
    let api = &world.api;
    for concert in 0..CONCERTS {
        let sections = json!([{"name": "A", "from": 1, "to": SEATS, "price": PRICE}]);
        let id = format!("c{concert}");
        world.put_queue(&id, queue_without_window()).await;
        let schedule = json!({"id": format!("{id}-1"), "starts_at": "2100-01-01T19:00:00.000Z",
            "sections": sections});
        world.put_concert(&id, json!({"title": id, "schedules": [schedule]})).await;
    }
    sell(&world.stores).await;
    let had = generations(&world.stores).await;
    let started = Instant::now();
    world.stores.redis().await.ask(&["FLUSHALL"]).await;
    eventually("the restore is complete", || async {
        let has = generations(&world.stores).await;
        has.iter()
            .zip(&had)
            .all(|(has, had)| has.parse::<u64>().is_ok() && has != had)
            .then_some(())
    })
    .await;
    wait_until_serving(api).await;
    api.charge(&new_user(), 1).await;
    let took = started.elapsed();
    let facts = world.stores.audit().await;
    println!(
        "{} reservations, {} seats, {} wallets: serving again after {took:.1?}, no violation in \
             the audit",
        facts.reservations.len(),
        facts.sold.len(),
        facts.wallets.len()
    );
    assert_eq!((facts.sold.len(), facts.payments_that_are("confirmed")), (100_000, 100_000));
    assert!(took < Duration::from_secs(60), "{took:?}");
}
