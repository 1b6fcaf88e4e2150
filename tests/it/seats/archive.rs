//! Pruning of ended records and archiving of sales: what leaves Redis, and how it is read
//! afterwards.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use reqwest::Method;
use serde_json::json;
use usher::app::PruneSchedule;
use usher::config::UsherConfig;
use usher::ids::ConcertId;

use crate::support::world::{fast_queue_settings, schedule_definition};
use crate::support::{
    ApiClient, CONCERT, SCHEDULE, TestInstance, TestStores, TestWorld, eventually, new_key,
};

/// Instances that prune ended records at once.
async fn world(instances: usize) -> TestWorld {
    let stores = TestStores::new().await;
    let retirement =
        PruneSchedule { retention: Duration::ZERO, interval: Duration::from_millis(100) };
    let mut started = Vec::new();
    for _ in 0..instances {
        started.push(TestInstance::start_with_pruning(&stores.args(), retirement).await);
    }
    let addresses = started.iter().map(|it| [it.public.clone(), it.admin.clone()]).collect();
    TestWorld { stores, api: ApiClient::new(addresses), instances: started }
}

/// The size of every key, by name.
async fn sizes(stores: &TestStores) -> BTreeMap<String, i64> {
    let mut redis = stores.redis().await;
    let mut sizes = BTreeMap::new();
    for key in redis.ask(&["KEYS", &format!("{}:*", stores.prefix)]).await.list() {
        let key = key.text();
        let size = match redis.ask(&["TYPE", &key]).await.text().as_str() {
            "hash" => redis.ask(&["HLEN", &key]).await.int(),
            "zset" => redis.ask(&["ZCARD", &key]).await.int(),
            "stream" => redis.ask(&["XLEN", &key]).await.int(),
            _ => 1,
        };
        sizes.insert(key, size);
    }
    sizes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ended_records_are_pruned_and_read_from_mysql() {
    let world = world(2).await;
    world.put_queue(CONCERT, fast_queue_settings()).await;
    let concert = json!({"title": "The show", "hold_seconds": 1,
        "schedules": [schedule_definition(60, 1_000)]});
    world.put_concert(CONCERT, concert).await;
    let api = &world.api;
    let mut bought = Vec::new();
    for seat in 1..=20 {
        let guest = api.active_user(CONCERT).await;
        api.charge(&guest.user, 1_500).await;
        let reservation = api.hold_seats(&guest.token, SCHEDULE, &[seat]).await;
        let key = new_key();
        let payment = api.pay(&guest.token, &reservation, &key).await.expect(201);
        let path = format!("/v1/reservations/{reservation}");
        let reported = api.get(&path).user(&guest.user).send().await.expect(200);
        bought.push((guest, reservation, payment, reported));
    }
    // Some holds expire, some are released, some cannot be paid.
    for seat in 21..=35 {
        let guest = api.active_user(CONCERT).await;
        let reservation = api.hold_seats(&guest.token, SCHEDULE, &[seat]).await;
        match seat % 3 {
            0 => drop(
                api.delete(&format!("/v1/reservations/{reservation}"))
                    .user(&guest.user)
                    .send()
                    .await
                    .expect(204),
            ),
            1 => drop(
                api.pay(&guest.token, &reservation, &new_key())
                    .await
                    .problem(402, "insufficient_balance"),
            ),
            _ => {}
        }
    }
    let partition = world.stores.partition_of(CONCERT);
    let key = |name: &str| world.stores.key(partition, name);
    eventually("Redis keeps only sold seats", || async {
        let sizes = sizes(&world.stores).await;
        let none = ["reservations", "payments"].iter().all(|name| !sizes.contains_key(&key(name)));
        (none && sizes[&key(&format!("s:{SCHEDULE}:seats"))] == 20).then_some(())
    })
    .await;
    // Everything reads as before.
    for (guest, reservation, payment, reported) in &bought {
        let path = format!("/v1/reservations/{reservation}");
        assert_eq!(api.get(&path).user(&guest.user).send().await.expect(200), *reported);
        api.delete(&path).user(&guest.user).send().await.problem(409, "not_releasable");
        let path = format!("/v1/payments/{}", payment["id"].as_str().unwrap());
        assert_eq!(api.get(&path).user(&guest.user).send().await.expect(200), *payment);
        let mine = api.get("/v1/reservations/mine").user(&guest.user).send().await.expect(200);
        assert_eq!(mine["items"], json!([reported]));
    }
    // Sold seats stay sold, and a cancellation is refunded.
    let rival = api.active_user(CONCERT).await;
    api.hold(&rival.token, SCHEDULE, &[20, 21]).await.problem(409, "seat_taken");
    let cancels = bought.iter().map(async |(guest, reservation, ..)| {
        let path = format!("/v1/reservations/{reservation}/cancel");
        api.post(&path).user(&guest.user).key(&new_key()).send().await.expect(200);
        assert_eq!(api.balance(&guest.user).await, 1_500);
    });
    join_all(cancels).await;
    eventually("Redis prunes the cancelled reservation", || async {
        let sizes = sizes(&world.stores).await;
        let names = [
            "reservations",
            "payments",
            &format!("s:{SCHEDULE}:seats"),
            &format!("q:{CONCERT}:bought"),
        ];
        names.iter().all(|name| !sizes.contains_key(&key(name))).then_some(())
    })
    .await;
    api.hold_seats(&rival.token, SCHEDULE, &[20, 21]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn archived_sale_leaves_only_its_sequence_in_redis() {
    let world = world(2).await;
    let api = &world.api;
    let before = sizes(&world.stores).await;
    world.put_show(12, 1_000).await;
    let mut bought = Vec::new();
    for seat in 1..=5 {
        let guest = api.active_user(CONCERT).await;
        api.charge(&guest.user, 1_000).await;
        let reservation = api.hold_seats(&guest.token, SCHEDULE, &[seat]).await;
        api.pay(&guest.token, &reservation, &new_key()).await.expect(201);
        bought.push((guest, reservation));
    }
    let last = api.active_user(CONCERT).await;
    let held = api.hold_seats(&last.token, SCHEDULE, &[9]).await;
    let config = UsherConfig::new(&world.stores.args()).unwrap();
    let show: ConcertId = CONCERT.parse().unwrap();

    // A held seat keeps the sale from being archived.
    usher::app::archive(&config.stores, &show).await.unwrap_err();
    assert_eq!(api.seats(&last.token, SCHEDULE).await[8], "held");
    let other = api.hold_seats(&last.token, SCHEDULE, &[10]).await;
    for id in [&held, &other] {
        api.delete(&format!("/v1/reservations/{id}")).user(&last.user).send().await.expect(204);
    }
    usher::app::archive(&config.stores, &show).await.unwrap();

    // Only keys of users and partitions, and the sequence of the queue remain.
    eventually("Redis has the same keys as before the sale", || async {
        let after = sizes(&world.stores).await;
        let new: Vec<_> = after.keys().filter(|key| !before.contains_key(*key)).collect();
        let rest = [
            "outbox",
            "records",
            "seq",
            "wallets",
            "idempotency",
            "idempotency_due",
            "wallet_ops",
            "wallet_ops_due",
            "tallies",
        ];
        let settings = format!("q:{CONCERT}:settings");
        // A later use of the queue continues the sequence of places, which is one field.
        let bucket = format!("q:{CONCERT}:bucket");
        let may_remain = |key: &str| {
            rest.contains(&key.rsplit(':').next().unwrap())
                || key.ends_with(&settings)
                || key.ends_with(&bucket) && after[key] == 1
        };
        new.iter().all(|key| may_remain(key)).then_some(())
    })
    .await;

    // Every row stays and reads as before. Bookings, cancellations and changes are refused.
    let (buyer, reservation) = &bought[0];
    let path = format!("/v1/reservations/{reservation}");
    assert_eq!(api.get(&path).user(&buyer.user).send().await.expect(200)["status"], "confirmed");
    world.wait_on_every_instance(&format!("/v1/queues/{CONCERT}"), |_| true).await;
    let guest = api.active_user(CONCERT).await;
    eventually("every instance knows that the sale is archived", || async {
        for _ in 0..2 {
            if api.hold(&guest.token, SCHEDULE, &[11]).await.status != 403 {
                return None;
            }
        }
        Some(())
    })
    .await;
    let cancel = api.post(&format!("{path}/cancel")).user(&buyer.user).key(&new_key());
    cancel.send().await.problem(403, "cancellation_closed");
    api.hold(&guest.token, SCHEDULE, &[1]).await.problem(403, "booking_not_open");
    let wish = json!({"schedule_id": SCHEDULE, "quantity": 1});
    let best = api.post("/v1/reservations/best").token(&guest.token).json(&wish).send().await;
    best.problem(403, "booking_not_open");
    let map = api.seats(&guest.token, SCHEDULE).await;
    assert!(
        map[..5].iter().all(|it| it == "sold") && map[5..].iter().all(|it| it == "available"),
        "{map:?}"
    );
    let again = api
        .put(
            &format!("/admin/concerts/{CONCERT}"),
            &crate::support::world::concert_definition(12, 1_000),
        )
        .await;
    again.problem(409, "in_use");
    usher::app::archive(&config.stores, &show).await.unwrap();

    // The concert does not need its queue any more.
    let queue = format!("/admin/queues/{CONCERT}?force=true");
    api.admin_call(Method::DELETE, &queue).send().await.expect_text(204);
    api.get(&format!("/v1/queues/{CONCERT}")).send().await.problem(404, "not_found");
    assert_eq!(api.get(&path).user(&buyer.user).send().await.expect(200)["status"], "confirmed");
    let cancel = api.post(&format!("{path}/cancel")).user(&buyer.user).key(&new_key());
    cancel.send().await.problem(403, "cancellation_closed");
    usher::app::archive(&config.stores, &show).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sale_is_archived_automatically_a_day_after_its_queue_closes() {
    let world = world(1).await;
    let mut past = schedule_definition(5, 1_000);
    past["starts_at"] = json!("2020-01-01T19:00:00.000Z");
    let concert = json!({"title": "Long ago", "schedules": [past]});
    world.put_queue(CONCERT, fast_queue_settings()).await;
    world.put_concert(CONCERT, concert.clone()).await;
    let api = &world.api;
    let put = async || api.put(&format!("/admin/concerts/{CONCERT}"), &concert).await.status;
    // Several passes change nothing while the queue is open.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(put().await, 200);
    let mut closed = fast_queue_settings();
    closed["closes_at"] = json!("2020-01-01T19:00:00.000Z");
    world.put_queue(CONCERT, closed).await;
    eventually("the sale is archived", || async { (put().await == 409).then_some(()) }).await;
}
