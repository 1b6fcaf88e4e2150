//! Webhooks: every event arrives at least once, signed and in order, whatever fails.

use std::sync::Mutex;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::future::join_all;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use reqwest::Method;
use serde_json::{Value, json};
use usher::webhooks::RetrySchedule;

use super::reader::{EventReader, events};
use super::receiver::{Behaviour, WebhookReceiver};
use crate::recovery::restore::{buyer, open_sale};
use crate::support::{
    ApiClient, TestInstance, TestStores, TestWorld, UsherProcess, eventually, new_key, new_user,
};

const ALL_TYPES: [&str; 10] = [
    "reservation.confirmed",
    "reservation.cancelled",
    "payment.confirmed",
    "payment.refunded",
    "payment.refund_due",
    "wallet.charged",
    "wallet.used",
    "coupon.issued",
    "reward.claimed",
    "queue.admitted",
];

/// Pauses of a machine without patience.
const FAST: RetrySchedule = RetrySchedule {
    attempt_timeout: Duration::from_millis(300),
    first_pause: Duration::from_millis(20),
    longest_pause: Duration::from_millis(100),
    give_up_after: Duration::from_secs(3_600),
};

/// Instances whose webhooks may lead to this machine.
async fn world(instances: usize, retries: RetrySchedule) -> TestWorld {
    let stores = TestStores::new().await;
    let mut args = stores.args();
    args.stores.events.webhook_allow_private = Some("true".to_owned());
    let mut all = Vec::new();
    for _ in 0..instances {
        all.push(TestInstance::start_with_retries(&args, retries).await);
    }
    TestWorld::with(stores, all)
}

async fn put(api: &ApiClient, id: &str, body: &Value) -> Value {
    api.put(&format!("/admin/webhooks/{id}"), body).await.expect(200)
}

async fn post(api: &ApiClient, path: &str, body: &Value) -> Value {
    api.admin_call(Method::POST, &format!("/admin/webhooks/{path}"))
        .json(body)
        .send()
        .await
        .expect(200)
}

/// A call without a body.
async fn act(api: &ApiClient, path: &str) -> Value {
    api.admin_call(Method::POST, &format!("/admin/webhooks/{path}")).send().await.expect(200)
}

async fn get(api: &ApiClient, path: &str) -> Value {
    api.admin_call(Method::GET, &format!("/admin/webhooks/{path}")).send().await.expect(200)
}

async fn cancel(api: &ApiClient, user: &str, reservation: &str) {
    let path = format!("/v1/reservations/{reservation}/cancel");
    api.post(&path).user(user).key(&new_key()).send().await.expect(200);
}

/// Waits until the receiver has accepted every event of MySQL, and checks their order.
async fn wait_for_everything(world: &TestWorld, receiver: &WebhookReceiver) {
    let stores = &world.stores;
    stores.wait_until_idle().await;
    eventually("every event is delivered", || async {
        let reader = EventReader::of(receiver.accepted());
        reader.missing(stores).await.is_empty().then_some(())
    })
    .await;
    EventReader::of(receiver.accepted()).assert_order();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_signed_also_during_a_rotation() {
    let world = world(2, FAST).await;
    open_sale(&world, 20).await;
    let api = &world.api;
    let receiver = WebhookReceiver::start(|| Behaviour::Accept).await;
    let body = json!({"url": receiver.url, "types": ALL_TYPES});
    let made = put(api, "books", &body).await;
    let first = made["secret"].as_str().unwrap().to_owned();
    assert!(get(api, "books").await.get("secret").is_none());
    let again = put(api, "books", &body).await;
    assert!(again.get("secret").is_none() && again["created_at"] == made["created_at"]);
    join_all((1..=3).map(|seat| buyer(api, seat, true))).await;
    wait_for_everything(&world, &receiver).await;
    assert!(receiver.received().iter().all(|message| message.is_signed_with(&first)));

    let before = receiver.received().len();
    let second = act(api, "books/rotate").await["secret"].as_str().unwrap().to_owned();
    let sold = buyer(api, 4, false).await;
    cancel(api, &sold.guest.user, &sold.reservation).await;
    wait_for_everything(&world, &receiver).await;
    let later = receiver.received().split_off(before);
    assert!(later.iter().any(|message| message.is_signed_with(&second)));
    assert!(later.iter().all(|message| message.is_signed_with(&first)));
    let over = "UPDATE webhooks SET old_secret_until = UTC_TIMESTAMP(3), version = version + 1";
    sqlx::query(over).execute(&world.stores.mysql).await.unwrap();
    eventually("the old secret does not sign any more", || async {
        let before = receiver.received().len();
        api.charge(&new_user(), 5).await;
        wait_for_everything(&world, &receiver).await;
        let last = receiver.received().split_off(before).pop().unwrap();
        assert!(last.is_signed_with(&second));
        (!last.is_signed_with(&first)).then_some(())
    })
    .await;

    let key = format!("whsk_{}", STANDARD.encode([9; 32]));
    let body = json!({"url": receiver.url, "types": ["wallet.charged"], "secret": key});
    let public = put(api, "books", &body).await["public_key"].as_str().unwrap().to_owned();
    let before = receiver.received().len();
    let delivery = act(api, "books/test").await;
    assert_eq!((&delivery["status_code"], &delivery["error"]), (&json!(204), &Value::Null));
    let tests = receiver.received().split_off(before);
    assert!(tests.iter().any(|it| it.event()["type"] == "webhook.test"));
    assert!(tests.iter().all(|message| message.is_signed_for(&public)));
    let actions = api.admin_call(Method::GET, "/admin/actions?limit=100").send().await;
    assert!(!actions.expect(200).to_string().contains("whs"), "no secret is in the audit log");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_arrives_in_order_at_an_endpoint_that_misbehaves() {
    let rounds: u64 =
        std::env::var("USHER_TEST_WEBHOOK_ROUNDS").map_or(2, |rounds| rounds.parse().unwrap());
    let first = crate::support::test_seed();
    for seed in first..first + rounds {
        println!("USHER_TEST_SEED={seed}");
        let world = world(2, FAST).await;
        open_sale(&world, 60).await;
        let api = &world.api;
        let random = Mutex::new(SmallRng::seed_from_u64(seed));
        let receiver = WebhookReceiver::start(move || {
            let mut random = random.lock().unwrap();
            match random.random_range(0..40) {
                0 => Behaviour::Hang,
                1 => Behaviour::CutOff,
                2 => Behaviour::Redirect,
                3..6 => Behaviour::Answer(500),
                6 => Behaviour::Answer(404),
                _ => Behaviour::Accept,
            }
        })
        .await;
        put(api, "books", &json!({"url": receiver.url, "types": ALL_TYPES})).await;
        let bought = join_all((1..=6).map(|seat| buyer(api, seat, seat % 2 == 0))).await;
        // The lease goes to the other instance.
        let (mut instances, stores) = world.into_parts();
        let stopped = usize::try_from(seed % 2).unwrap();
        drop(instances.remove(stopped));
        let world = TestWorld::with(stores, instances);
        let api = &world.api;
        join_all(bought.iter().map(|it| cancel(api, &it.guest.user, &it.reservation))).await;
        wait_for_everything(&world, &receiver).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_instance_continues_after_a_kill() {
    let stores = TestStores::new().await;
    let settings = [("USHER_WEBHOOK_ALLOW_PRIVATE", "true".to_owned())];
    let first = UsherProcess::start_with(&stores, &settings).await;
    let second = UsherProcess::start_with(&stores, &settings).await;
    let receiver = WebhookReceiver::start(|| Behaviour::Accept).await;
    let api = second.api();
    put(&api, "books", &json!({"url": receiver.url, "types": ["wallet.charged"]})).await;
    let users: Vec<String> = (0..40).map(|_| new_user()).collect();
    let charge_all = async |api: &ApiClient| {
        for _ in 0..5 {
            join_all(users.iter().map(|user| api.charge(user, 5))).await;
        }
    };
    let some_arrive = async |more: usize| {
        let wanted = receiver.received().len() + more;
        eventually("some events arrive", || async {
            (receiver.received().len() >= wanted).then_some(())
        })
        .await;
    };
    // One of the two delivers. Each is killed once.
    let ((), ()) = tokio::join!(charge_all(&api), some_arrive(20));
    first.kill().await;
    let third = UsherProcess::start_with(&stores, &settings).await;
    let api = third.api();
    let ((), ()) = tokio::join!(charge_all(&api), some_arrive(20));
    second.kill().await;
    stores.wait_until_idle().await;
    let world = TestWorld::with(stores, Vec::new());
    wait_for_everything(&world, &receiver).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoint_that_is_gone_or_fails_too_long_is_disabled() {
    let impatient = RetrySchedule { give_up_after: Duration::from_millis(200), ..FAST };
    let world = world(1, impatient).await;
    let api = &world.api;
    for (status, reason) in [(410, "gone"), (503, "failing")] {
        let receiver = WebhookReceiver::start(move || Behaviour::Answer(status)).await;
        let body = json!({"url": receiver.url, "types": ["wallet.charged"]});
        put(api, "books", &body).await;
        api.charge(&new_user(), 5).await;
        let disabled = eventually("the webhook is disabled", || async {
            let webhook = get(api, "books").await;
            (webhook["active"] == false).then_some(webhook)
        })
        .await;
        assert_eq!(disabled["disabled_reason"], reason);
        let deliveries = get(api, "books/deliveries?limit=1").await;
        assert_eq!(deliveries["items"][0]["status_code"], status);
        // Nothing is skipped: the operator repairs the endpoint and turns the webhook on again.
        receiver.behave(|| Behaviour::Accept);
        let again = put(api, "books", &body).await;
        assert_eq!((&again["active"], &again["disabled_reason"]), (&json!(true), &Value::Null));
        eventually("the event is delivered", || async {
            (!receiver.accepted().is_empty()).then_some(())
        })
        .await;
        assert_eq!(receiver.accepted()[0]["data"]["amount"], 5);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replay_sends_events_again_and_a_pause_sends_none() {
    let world = world(2, FAST).await;
    let api = &world.api;
    let receiver = WebhookReceiver::start(|| Behaviour::Accept).await;
    let start = events(api, "").await.expect(200)["next"].clone();
    let mut body = json!({"url": receiver.url, "types": ["wallet.charged"], "active": false});
    put(api, "books", &body).await;
    let amounts = async || -> Vec<i64> {
        receiver.accepted().iter().map(|it| it["data"]["amount"].as_i64().unwrap()).collect()
    };
    let arrives = async |wanted: &[i64]| {
        eventually("the events arrive", || async { (amounts().await == wanted).then_some(()) })
            .await;
    };
    let user = new_user();
    api.charge(&user, 1).await;
    api.charge(&user, 2).await;
    world.stores.wait_until_idle().await;
    assert_eq!(get(api, "books").await["active"], false);
    body["active"] = json!(true);
    put(api, "books", &body).await;
    arrives(&[1, 2]).await;
    post(api, "books/replay", &json!({"after": start})).await;
    arrives(&[1, 2, 1, 2]).await;
    api.charge(&user, 3).await;
    arrives(&[1, 2, 1, 2, 3]).await;
    let deliveries = get(api, "books/deliveries?limit=2").await;
    assert_eq!(deliveries["items"].as_array().unwrap().len(), 2);
    let next = deliveries["next"].as_str().unwrap();
    let older = get(api, &format!("books/deliveries?limit=500&before={next}")).await;
    assert_eq!(older["items"].as_array().unwrap().len(), 3);
    assert_eq!(older["next"], Value::Null);
    api.admin_call(Method::DELETE, "/admin/webhooks/books").send().await.expect_text(204);
    api.admin_call(Method::GET, "/admin/webhooks/books").send().await.problem(404, "not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn private_addresses_are_refused_at_each_attempt() {
    let world = world(1, FAST).await;
    let receiver = WebhookReceiver::start(|| Behaviour::Accept).await;
    let port = receiver.url.rsplit(':').next().unwrap();
    let urls = [receiver.url.clone(), format!("http://localhost:{port}")];
    for (nth, url) in urls.iter().enumerate() {
        let body = json!({"url": url, "types": ["wallet.charged"]});
        put(&world.api, &format!("books-{nth}"), &body).await;
        assert_eq!(act(&world.api, &format!("books-{nth}/test")).await["status_code"], 204);
    }
    let (_, stores) = world.into_parts();
    let before = receiver.received().len();
    let strict = TestWorld::on(stores, 1).await;
    for (nth, url) in urls.iter().enumerate() {
        let refused = act(&strict.api, &format!("books-{nth}/test")).await;
        assert_eq!(refused["status_code"], Value::Null);
        assert!(refused["error"].as_str().unwrap().contains("private"), "{refused}");
        let body = json!({"url": url, "types": ["wallet.charged"]});
        let refused = strict.api.put("/admin/webhooks/new", &body).await;
        assert_eq!(refused.problem(422, "invalid_request")["errors"][0]["field"], "url");
    }
    assert_eq!(receiver.received().len(), before);
}
