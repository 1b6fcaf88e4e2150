//! What leaves Redis when it is over, and how it reads from then on.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use serde_json::json;
use usher::app::PruneSchedule;
use usher::config::UsherConfig;
use usher::ids::ConcertId;

use crate::support::world::{fast_queue, night};
use crate::support::{Api, Instance, NIGHT, SHOW, Stores, World, eventually, new_key};

/// A world whose instances keep what has ended for no time at all.
async fn world(instances: usize) -> World {
    let stores = Stores::new().await;
    let retirement = PruneSchedule { keep: Duration::ZERO, every: Duration::from_millis(100) };
    let mut started = Vec::new();
    for _ in 0..instances {
        started.push(Instance::start_retiring(&stores.args(), retirement).await);
    }
    let addresses = started.iter().map(|it| [it.public.clone(), it.admin.clone()]).collect();
    World { stores, api: Api::new(addresses), instances: started }
}

/// How much every key holds, by name.
async fn sizes(stores: &Stores) -> BTreeMap<String, i64> {
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
async fn what_has_ended_leaves_redis_and_reads_from_mysql() {
    let world = world(2).await;
    world.queue(SHOW, fast_queue()).await;
    let concert = json!({"title": "The show", "hold_seconds": 1, "schedules": [night(60, 1_000)]});
    world.concert(SHOW, concert).await;
    let api = &world.api;
    let mut bought = Vec::new();
    for seat in 1..=20 {
        let guest = api.active_guest(SHOW).await;
        api.charge(&guest.user, 1_500).await;
        let reservation = api.held(&guest.token, NIGHT, &[seat]).await;
        let key = new_key();
        let payment = api.pay(&guest.token, &reservation, &key).await.expect(201);
        let path = format!("/v1/reservations/{reservation}");
        let told = api.get(&path).user(&guest.user).send().await.expect(200);
        bought.push((guest, reservation, payment, told));
    }
    // Some hold and let it lapse, some release, some can't pay.
    for seat in 21..=35 {
        let guest = api.active_guest(SHOW).await;
        let reservation = api.held(&guest.token, NIGHT, &[seat]).await;
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
    let partition = world.stores.partition_of(SHOW);
    let key = |name: &str| world.stores.key(partition, name);
    eventually("Redis keeps nothing but what is sold", || async {
        let sizes = sizes(&world.stores).await;
        let none = ["reservations", "payments"].iter().all(|name| !sizes.contains_key(&key(name)));
        (none && sizes[&key(&format!("s:{NIGHT}:seats"))] == 20).then_some(())
    })
    .await;
    // It all reads as before.
    for (guest, reservation, payment, told) in &bought {
        let path = format!("/v1/reservations/{reservation}");
        assert_eq!(api.get(&path).user(&guest.user).send().await.expect(200), *told);
        api.delete(&path).user(&guest.user).send().await.problem(409, "not_releasable");
        let path = format!("/v1/payments/{}", payment["id"].as_str().unwrap());
        assert_eq!(api.get(&path).user(&guest.user).send().await.expect(200), *payment);
        let mine = api.get("/v1/reservations/mine").user(&guest.user).send().await.expect(200);
        assert_eq!(mine["items"], json!([told]));
    }
    // What is sold stays sold, and what is cancelled is given back.
    let rival = api.active_guest(SHOW).await;
    api.hold(&rival.token, NIGHT, &[20, 21]).await.problem(409, "seat_taken");
    let cancels = bought.iter().map(async |(guest, reservation, ..)| {
        let path = format!("/v1/reservations/{reservation}/cancel");
        api.post(&path).user(&guest.user).key(&new_key()).send().await.expect(200);
        assert_eq!(api.balance(&guest.user).await, 1_500);
    });
    join_all(cancels).await;
    eventually("Redis forgets the cancelled too", || async {
        let sizes = sizes(&world.stores).await;
        let names =
            ["reservations", "payments", &format!("s:{NIGHT}:seats"), &format!("q:{SHOW}:bought")];
        names.iter().all(|name| !sizes.contains_key(&key(name))).then_some(())
    })
    .await;
    api.held(&rival.token, NIGHT, &[20, 21]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archived_sale_leaves_redis_as_it_was_before() {
    let world = world(2).await;
    let api = &world.api;
    let before = sizes(&world.stores).await;
    world.show(12, 1_000).await;
    let mut bought = Vec::new();
    for seat in 1..=5 {
        let guest = api.active_guest(SHOW).await;
        api.charge(&guest.user, 1_000).await;
        let reservation = api.held(&guest.token, NIGHT, &[seat]).await;
        api.pay(&guest.token, &reservation, &new_key()).await.expect(201);
        bought.push((guest, reservation));
    }
    let last = api.active_guest(SHOW).await;
    let held = api.held(&last.token, NIGHT, &[9]).await;
    let config = UsherConfig::new(&world.stores.args()).unwrap();
    let show: ConcertId = SHOW.parse().unwrap();

    // While somebody holds a seat the sale goes on.
    usher::app::archive(&config.stores, &show).await.unwrap_err();
    assert_eq!(api.seats(&last.token, NIGHT).await[8], "held");
    let other = api.held(&last.token, NIGHT, &[10]).await;
    for id in [&held, &other] {
        api.delete(&format!("/v1/reservations/{id}")).user(&last.user).send().await.expect(204);
    }
    usher::app::archive(&config.stores, &show).await.unwrap();

    // Nothing of it is left but what every user and every partition has.
    eventually("Redis is as it was", || async {
        let after = sizes(&world.stores).await;
        let new: Vec<_> = after.keys().filter(|key| !before.contains_key(*key)).collect();
        let rest = [
            "outbox",
            "seq",
            "wallets",
            "idempotency",
            "idempotency_due",
            "wallet_ops",
            "wallet_ops_due",
            "tallies",
        ];
        let settings = format!("q:{SHOW}:settings");
        let of_the_sale = |key: &str| {
            !rest.contains(&key.rsplit(':').next().unwrap()) && !key.ends_with(&settings)
        };
        new.iter().all(|key| !of_the_sale(key)).then_some(())
    })
    .await;

    // Every row stays, and reads as before; nothing can be booked, cancelled or changed.
    let (buyer, reservation) = &bought[0];
    let path = format!("/v1/reservations/{reservation}");
    assert_eq!(api.get(&path).user(&buyer.user).send().await.expect(200)["status"], "confirmed");
    world.everywhere(&format!("/v1/queues/{SHOW}"), |_| true).await;
    let guest = api.active_guest(SHOW).await;
    eventually("every instance knows that it is over", || async {
        for _ in 0..2 {
            if api.hold(&guest.token, NIGHT, &[11]).await.status != 403 {
                return None;
            }
        }
        Some(())
    })
    .await;
    let cancel = api.post(&format!("{path}/cancel")).user(&buyer.user).key(&new_key());
    cancel.send().await.problem(403, "cancellation_closed");
    api.hold(&guest.token, NIGHT, &[1]).await.problem(403, "booking_not_open");
    let wish = json!({"schedule_id": NIGHT, "quantity": 1});
    let best = api.post("/v1/reservations/best").token(&guest.token).json(&wish).send().await;
    best.problem(403, "booking_not_open");
    let map = api.seats(&guest.token, NIGHT).await;
    assert!(
        map[..5].iter().all(|it| it == "sold") && map[5..].iter().all(|it| it == "available"),
        "{map:?}"
    );
    let again =
        api.put(&format!("/admin/concerts/{SHOW}"), &crate::support::world::show(12, 1_000)).await;
    again.problem(409, "in_use");
    usher::app::archive(&config.stores, &show).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sale_is_archived_by_itself_a_day_after_its_queue_has_closed() {
    let world = world(1).await;
    let mut past = night(5, 1_000);
    past["starts_at"] = json!("2020-01-01T19:00:00.000Z");
    let concert = json!({"title": "Long ago", "schedules": [past]});
    world.queue(SHOW, fast_queue()).await;
    world.concert(SHOW, concert.clone()).await;
    let api = &world.api;
    let put = async || api.put(&format!("/admin/concerts/{SHOW}"), &concert).await.status;
    // Several rounds pass, and nothing happens while the queue is open.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(put().await, 200);
    let mut closed = fast_queue();
    closed["closes_at"] = json!("2020-01-01T19:00:00.000Z");
    world.queue(SHOW, closed).await;
    eventually("the sale is archived", || async { (put().await == 409).then_some(()) }).await;
}
