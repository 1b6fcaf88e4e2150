//! `GET /admin/events`: complete, in order, from any cursor.

use std::time::Duration;

use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use super::reader::{EventReader, events};
use crate::recovery::restore::{buyer, lose_redis, open_sale};
use crate::support::{
    ApiClient, TestInstance, TestStores, TestWorld, eventually, new_key, new_user, on_one_and_two,
};

on_one_and_two!(
    events_are_the_objects_of_the_api,
    small_pages_are_the_large_one,
    reader_waits_for_an_event,
    reader_misses_nothing_when_redis_is_lost,
);

async fn admin(api: &ApiClient, path: &str) -> Value {
    api.admin_call(Method::GET, path).send().await.expect(200)
}

async fn cancel(api: &ApiClient, user: &str, reservation: &str) {
    let path = format!("/v1/reservations/{reservation}/cancel");
    api.post(&path).user(user).key(&new_key()).send().await.expect(200);
}

async fn claim(api: &ApiClient, user: &str) -> Value {
    api.post("/v1/rewards/hello/claims").user(user).send().await.expect(201)
}

async fn events_are_the_objects_of_the_api(world: TestWorld) {
    open_sale(&world, 20).await;
    let (api, stores) = (&world.api, &world.stores);
    let first = buyer(api, 1, true).await;
    let claimed = claim(api, &first.guest.user).await;
    stores.wait_until_idle().await;
    let mut reader = EventReader::default();
    reader.read_everything(api, stores).await;
    let of = |reader: &EventReader, kind: &str| {
        let found: Vec<Value> = reader
            .distinct()
            .into_iter()
            .filter(|event| event["type"] == kind)
            .map(|event| event["data"].clone())
            .collect();
        assert_eq!(found.len(), 1, "{kind}: {found:?}");
        found[0].clone()
    };
    let reservation = format!("/admin/reservations/{}", first.reservation);
    assert_eq!(of(&reader, "reservation.confirmed"), admin(api, &reservation).await);
    let paid = of(&reader, "payment.confirmed");
    let payment = format!("/admin/payments/{}", paid["id"].as_str().unwrap());
    assert_eq!(paid, admin(api, &payment).await);
    let issues = api.get("/v1/coupons/issues/mine").user(&first.guest.user).send().await;
    let mut issue = issues.expect(200)["items"][0].clone();
    // As it was when it was issued.
    issue["used_at"] = Value::Null;
    assert_eq!(of(&reader, "coupon.issued"), issue);
    let entries = api.get("/v1/wallet/entries").user(&first.guest.user).send().await.expect(200);
    for (kind, word) in [("wallet.charged", "charge"), ("wallet.used", "use")] {
        let entries = entries["items"].as_array().unwrap();
        let mut entry = entries.iter().find(|entry| entry["kind"] == word).unwrap().clone();
        entry["user_id"] = json!(first.guest.user);
        assert_eq!(of(&reader, kind), entry);
    }
    let reward = of(&reader, "reward.claimed");
    assert_eq!((&reward["id"], &reward["code"]), (&claimed["id"], &json!("hello")));
    let admitted: u64 = reader
        .distinct()
        .iter()
        .filter(|event| event["type"] == "queue.admitted")
        .map(|event| event["data"]["count"].as_u64().unwrap())
        .sum();
    assert_eq!(admitted, 1);

    cancel(api, &first.guest.user, &first.reservation).await;
    reader.read_everything(api, stores).await;
    assert_eq!(of(&reader, "reservation.cancelled"), admin(api, &reservation).await);
    assert_eq!(of(&reader, "payment.refunded"), admin(api, &payment).await);
    let types = reader.types();
    let rare = events(api, "?types=payment.refunded,wallet.used").await.expect(200);
    let rare = rare["items"].as_array().unwrap();
    assert_eq!(rare.len(), types["payment.refunded"] + types["wallet.used"]);
}

async fn small_pages_are_the_large_one(world: TestWorld) {
    open_sale(&world, 20).await;
    let (api, stores) = (&world.api, &world.stores);
    join_all((1..=8).map(|seat| buyer(api, seat, seat % 2 == 0))).await;
    let issues = (0..40).map(async |_| {
        let path = "/v1/coupons/spring/issues";
        api.post(path).user(&new_user()).send().await.status
    });
    join_all(issues).await;
    stores.wait_until_idle().await;
    let ids = async |limit| {
        let mut reader = EventReader::default();
        reader.read_to_the_end(api, limit).await;
        let mut ids: Vec<String> =
            reader.read.iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect();
        ids.sort_unstable();
        ids
    };
    let all = ids(500).await;
    assert!(all.len() > 30, "{}", all.len());
    assert!(all.windows(2).all(|pair| pair[0] != pair[1]), "each event has its own id");
    for limit in [1, 2, 7] {
        assert_eq!(ids(limit).await, all, "{limit}");
    }
}

async fn reader_waits_for_an_event(world: TestWorld) {
    let api = &world.api;
    let next = events(api, "").await.expect(200)["next"].as_str().unwrap().to_owned();
    let query = format!("?after={next}&wait_seconds=30&types=wallet.charged");
    let user = new_user();
    let (page, ()) = tokio::join!(events(api, &query), api.charge(&user, 5));
    assert_eq!(page.expect(200)["items"].as_array().unwrap().len(), 1);
}

async fn reader_misses_nothing_when_redis_is_lost(world: TestWorld) {
    let world = match world.api.instances() {
        1 => TestWorld::on(TestStores::with_own_redis().await, 1).await,
        _ => TestWorld::on(TestStores::with_own_redis().await, 2).await,
    };
    open_sale(&world, 60).await;
    let (api, stores) = (&world.api, &world.stores);
    let mut reader = EventReader::default();
    join_all((1..=4).map(|seat| buyer(api, seat, false))).await;
    reader.read_page(api, 5).await;
    stores.wait_until_idle().await;
    lose_redis(&world).await;
    let bought = join_all((11..=14).map(|seat| buyer(api, seat, true))).await;
    join_all(bought.iter().map(|it| cancel(api, &it.guest.user, &it.reservation))).await;
    reader.read_everything(api, stores).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reader_misses_nothing_when_mysql_goes_back() {
    let world = TestWorld::on(TestStores::with_own_redis().await, 2).await;
    open_sale(&world, 60).await;
    let (api, stores) = (&world.api, &world.stores);
    let mut reader = EventReader::default();
    join_all((1..=4).map(|seat| buyer(api, seat, false))).await;
    stores.audit().await;
    let copy = stores.copy_mysql().await;
    join_all((5..=8).map(|seat| buyer(api, seat, true))).await;
    reader.read_everything(api, stores).await;
    let before = reader.distinct().len();
    assert!(stores.take_mysql_back(&copy).await);
    crate::recovery::mysql_back::wait_until_mysql_has_everything(stores).await;
    crate::recovery::restore::wait_until_serving(api).await;
    // What was read is repeated with the same ids.
    reader.read_everything(api, stores).await;
    assert_eq!(reader.distinct().len(), before);
    let bought = join_all((11..=14).map(|seat| buyer(api, seat, true))).await;
    join_all(bought.iter().map(|it| cancel(api, &it.guest.user, &it.reservation))).await;
    reader.read_everything(api, stores).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_events_are_deleted_and_their_cursors_expire() {
    let stores = TestStores::new().await;
    let schedule = usher::app::PruneSchedule {
        interval: Duration::from_millis(50),
        ..usher::app::PruneSchedule::default()
    };
    let instance = TestInstance::start_with_pruning(&stores.args(), schedule).await;
    let world = TestWorld::with(stores, vec![instance]);
    let (api, stores) = (&world.api, &world.stores);
    let start = events(api, "").await.expect(200)["next"].as_str().unwrap().to_owned();
    let user = new_user();
    api.charge(&user, 5).await;
    stores.wait_until_idle().await;
    let page = events(api, &format!("?after={start}")).await.expect(200);
    assert_eq!(page["items"].as_array().unwrap().len(), 1);
    let read = page["next"].as_str().unwrap().to_owned();
    let age = "UPDATE events SET written_at = written_at - INTERVAL 73 HOUR";
    sqlx::query(age).execute(&stores.mysql).await.unwrap();
    eventually("the event is deleted", || async {
        (stores.count("SELECT COUNT(*) FROM events").await == 0).then_some(())
    })
    .await;
    events(api, &format!("?after={start}")).await.problem(410, "cursor_expired");
    api.charge(&user, 6).await;
    stores.wait_until_idle().await;
    for query in [String::new(), format!("?after={read}")] {
        let page = events(api, &query).await.expect(200);
        assert_eq!(page["items"][0]["data"]["amount"], 6, "{page}");
    }
}
