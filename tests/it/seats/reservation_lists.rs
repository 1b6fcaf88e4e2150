//! Lists of reservations: a user's own, and a concert's for its operator.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::servers::partition_of_user;
use crate::support::world::{fast_queue_settings, schedule_definition};
use crate::support::{ApiClient, CONCERT, SCHEDULE, TestWorld, new_key, new_user, on_one_and_two};

on_one_and_two!(
    own_reservations_are_listed_across_partitions,
    every_change_is_listed_immediately,
    own_reservations_are_paged,
    lists_are_bounded_while_mysql_takes_no_writes,
    operator_pages_through_a_concert,
);

async fn mine(api: &ApiClient, user: &str, query: &str) -> Value {
    api.get(&format!("/v1/reservations/mine{query}")).user(user).send().await.expect(200)
}

async fn admin_page(api: &ApiClient, query: &str) -> Value {
    let path = format!("/admin/concerts/{CONCERT}/reservations{query}");
    api.admin_call(Method::GET, &path).send().await.expect(200)
}

fn column(page: &Value, name: &str) -> Vec<String> {
    let items = page["items"].as_array().unwrap().iter();
    items.map(|item| item[name].as_str().unwrap().to_owned()).collect()
}

/// Holds a seat in a millisecond without other holds: within one millisecond the order is
/// undefined.
async fn hold_seats(api: &ApiClient, token: &str, schedule: &str, seats: &[u32]) -> String {
    tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    api.hold_seats(token, schedule, seats).await
}

async fn open_sale(world: &TestWorld, hold_seconds: u32) {
    world.put_queue(CONCERT, fast_queue_settings()).await;
    let concert = json!({"title": "The show", "max_seats_per_user": 50,
        "hold_seconds": hold_seconds,
        "schedules": [schedule_definition(50, 1_000)]});
    world.put_concert(CONCERT, concert).await;
}

async fn own_reservations_are_listed_across_partitions(world: TestWorld) {
    open_sale(&world, 300).await;
    let mut other = schedule_definition(5, 2_000);
    other["id"] = json!("gala");
    world.put_queue("other", fast_queue_settings()).await;
    world.put_concert("other", json!({"title": "Another", "schedules": [other]})).await;
    let api = &world.api;
    let guest = api.active_user(CONCERT).await;
    assert_eq!(mine(api, &guest.user, "").await, json!({"items": [], "next": null}));
    api.charge(&guest.user, 50_000).await;
    let first = hold_seats(api, &guest.token, SCHEDULE, &[1]).await;
    let second = hold_seats(api, &guest.token, SCHEDULE, &[2, 3]).await;
    let third = hold_seats(api, &guest.token, SCHEDULE, &[4]).await;
    let ticket = api.join("other", &guest.user).await.expect(201);
    let fourth = hold_seats(api, ticket["token"].as_str().unwrap(), "gala", &[1]).await;
    api.pay(&guest.token, &second, &new_key()).await.expect(201);
    api.delete(&format!("/v1/reservations/{third}")).user(&guest.user).send().await.expect(204);
    for _ in 0..2 {
        let all = mine(api, &guest.user, "").await;
        assert_eq!(column(&all, "id"), [&*fourth, &third, &second, &first]);
        assert_eq!(column(&all, "status"), ["held", "released", "confirmed", "held"]);
        assert_eq!(column(&all, "concert_title")[0], "Another");
        let path = format!("/v1/reservations/{second}");
        assert_eq!(all["items"][2], api.get(&path).user(&guest.user).send().await.expect(200));
        world.stores.wait_until_idle().await;
    }
    assert_eq!(
        mine(api, &new_user(), "").await["items"],
        json!([]),
        "other users' reservations are not listed"
    );
    api.get("/v1/reservations/mine").send().await.problem(401, "unauthenticated");
}

async fn every_change_is_listed_immediately(world: TestWorld) {
    open_sale(&world, 1).await;
    let api = &world.api;
    let guest = api.active_user(CONCERT).await;
    api.charge(&guest.user, 50_000).await;
    for seat in 1..=15 {
        let reservation = hold_seats(api, &guest.token, SCHEDULE, &[seat]).await;
        let newest = async |status: &str| {
            let list = mine(api, &guest.user, "").await;
            assert_eq!(
                list["items"].as_array().unwrap().len(),
                seat as usize,
                "every reservation is listed once"
            );
            assert_eq!(
                (&list["items"][0]["id"], &list["items"][0]["status"]),
                (&json!(reservation), &json!(status))
            );
        };
        newest("held").await;
        if seat % 5 == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(1_020)).await;
            newest("expired").await;
        } else {
            api.delete(&format!("/v1/reservations/{reservation}"))
                .user(&guest.user)
                .send()
                .await
                .expect(204);
            newest("released").await;
        }
    }
}

async fn own_reservations_are_paged(world: TestWorld) {
    open_sale(&world, 300).await;
    let api = &world.api;
    let guest = api.active_user(CONCERT).await;
    let mut made = Vec::new();
    for seat in 1..=11 {
        made.insert(0, hold_seats(api, &guest.token, SCHEDULE, &[seat]).await);
        if seat % 3 == 0 {
            api.delete(&format!("/v1/reservations/{}", made[0]))
                .user(&guest.user)
                .send()
                .await
                .expect(204);
        }
    }
    let (mut seen, mut next) = (Vec::new(), String::new());
    loop {
        let page = mine(api, &guest.user, &format!("?limit=4{next}")).await;
        seen.extend(column(&page, "id"));
        match page["next"].as_str() {
            Some(before) => next = format!("&before={before}"),
            None => break,
        }
    }
    assert_eq!(seen, made);
    for query in ["?limit=0", "?limit=501", "?before=x", "?status=held"] {
        let path = format!("/v1/reservations/mine{query}");
        api.get(&path).user(&guest.user).send().await.problem(422, "invalid_request");
    }
}

async fn operator_pages_through_a_concert(world: TestWorld) {
    open_sale(&world, 300).await;
    let api = &world.api;
    let mut made = Vec::new();
    for seat in 1..=9 {
        let guest = api.active_user(CONCERT).await;
        api.charge(&guest.user, 1_000).await;
        let reservation = hold_seats(api, &guest.token, SCHEDULE, &[seat]).await;
        if seat % 3 == 0 {
            api.delete(&format!("/v1/reservations/{reservation}"))
                .user(&guest.user)
                .send()
                .await
                .expect(204);
        } else {
            api.pay(&guest.token, &reservation, &new_key()).await.expect(201);
        }
        made.insert(0, (reservation, guest.user));
    }
    let (mut seen, mut next) = (Vec::new(), String::new());
    loop {
        let page = admin_page(api, &format!("?limit=4{next}")).await;
        seen.extend(column(&page, "id").into_iter().zip(column(&page, "user_id")));
        match page["next"].as_str() {
            Some(before) => next = format!("&before={before}"),
            None => break,
        }
    }
    assert_eq!(seen, made);
    assert_eq!(
        column(&admin_page(api, "?limit=3").await, "status"),
        ["released", "confirmed", "confirmed"]
    );
    api.admin_call(Method::GET, "/admin/concerts/none/reservations")
        .send()
        .await
        .problem(404, "not_found");
    let path = format!("/admin/concerts/{CONCERT}/reservations");
    api.keyless_admin_call(Method::GET, &path).send().await.problem(401, "unauthenticated");
}

async fn lists_are_bounded_while_mysql_takes_no_writes(world: TestWorld) {
    world.put_show(10, 1_000).await;
    let (api, stores) = (&world.api, &world.stores);
    let guest = api.active_user(CONCERT).await;
    stores.wait_until_written().await;
    let partition = stores.partition_of(CONCERT);
    let neighbour =
        std::iter::repeat_with(new_user).find(|user| partition_of_user(user) == partition).unwrap();
    // The writers skip checkpoints that are locked.
    let mut lock = stores.mysql.begin().await.unwrap();
    sqlx::query("SELECT n FROM outbox_checkpoints FOR UPDATE").execute(&mut *lock).await.unwrap();

    let held = api.hold_seats(&guest.token, SCHEDULE, &[1]).await;
    let path = format!("/v1/reservations/{held}");
    api.delete(&path).token(&guest.token).send().await.expect(204);
    // An entry of others is not decoded. The writer makes it a dead letter later.
    let mut redis = stores.redis().await;
    let n = redis.ask(&["INCR", &stores.key(partition, "seq")]).await.int();
    let outbox = stores.key(partition, "outbox");
    redis.ask(&["XADD", &outbox, &format!("{n}-0"), "v1", "not MessagePack"]).await;
    let list = || api.get("/v1/reservations/mine").user(&guest.user).send();
    let listed = list().await.expect(200);
    assert_eq!(listed["items"][0]["status"], "released", "{listed}");

    // Five megabytes of them.
    for _ in 0..100 {
        let n = redis.ask(&["INCR", &stores.key(partition, "seq")]).await.int();
        redis.ask(&["XADD", &outbox, &format!("{n}-0"), "v1", &"x".repeat(50_000)]).await;
    }
    let answers = futures::future::join_all((0..20).map(|_| list())).await;
    for answer in answers {
        answer.problem(503, "overloaded");
    }
    api.get("/v1/wallet/entries").user(&neighbour).send().await.problem(503, "overloaded");
    api.join(CONCERT, &new_user()).await.expect(201);

    lock.rollback().await.unwrap();
    stores.wait_until_written().await;
    assert_eq!(list().await.expect(200)["items"].as_array().unwrap().len(), 1);
}
