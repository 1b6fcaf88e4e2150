//! What leaves Redis when it is over, and how it reads from then on.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use serde_json::json;
use usher::app::Retirement;

use crate::support::world::{fast_queue, night};
use crate::support::{Api, Instance, NIGHT, SHOW, Stores, World, eventually, new_key};

/// A world whose instances keep what has ended for no time at all.
async fn world(instances: usize) -> World {
    let stores = Stores::new().await;
    let retirement = Retirement { keep: Duration::ZERO, every: Duration::from_millis(100) };
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
                api.pay(&guest.token, &reservation, &new_key()).await.problem(402, "insufficient_balance"),
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
        let names = ["reservations", "payments", &format!("s:{NIGHT}:seats"), &format!("q:{SHOW}:bought")];
        names.iter().all(|name| !sizes.contains_key(&key(name))).then_some(())
    })
    .await;
    api.held(&rival.token, NIGHT, &[20, 21]).await;
}
