//! What both listeners show besides the rooms: keys, metrics, health, documents, limits.

use futures::future::join_all;
use reqwest::Method;
use serde_json::json;
use usher::config::args::ServeArgs;

use crate::support::{Api, Instance, NIGHT, SHOW, Stores, World, eventually, new_key, new_user};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_admin_listener_asks_for_its_key_and_shows_metrics_without() {
    let world = World::start(1).await;
    world.show(10, 1_000).await;
    let api = &world.api;
    let guest = api.active_guest(SHOW).await;
    api.charge(&guest.user, 1_000).await;
    let reservation = api.held(&guest.token, NIGHT, &[1]).await;
    api.pay(&guest.token, &reservation, &new_key()).await.expect(201);
    world.stores.at_rest().await;

    api.keyless_admin_call(Method::GET, "/admin/queues")
        .send()
        .await
        .problem(401, "unauthenticated");
    let metrics = api.keyless_admin_call(Method::GET, "/metrics").send().await.expect_text(200);
    for name in [
        "usher_http_requests_total",
        "usher_holds_total",
        "usher_payments_total",
        "usher_outbox_backlog_entries",
        "usher_outbox_lag_seconds",
        "usher_build_info",
    ] {
        assert!(metrics.contains(name), "{name}: {metrics}");
    }
    for (listener, path) in [
        ("public", "/metrics"),
        ("public", "/admin/queues"),
        ("admin", "/v1/wallet"),
        ("admin", "/v1/queues/show"),
    ] {
        let answer = match listener {
            "public" => api.get(path).user(&guest.user).send().await,
            _ => api.admin_call(Method::GET, path).user(&guest.user).send().await,
        };
        answer.problem(404, "not_found");
    }
}

#[tokio::test]
async fn documents_and_health_are_served() {
    let world = World::start(1).await;
    let api = &world.api;
    assert_eq!(api.get("/healthz").send().await.expect_text(200), "ok");
    assert_eq!(api.keyless_admin_call(Method::GET, "/healthz").send().await.expect_text(200), "ok");
    let ready = api.get("/readyz").send().await.expect(200);
    let names: Vec<_> =
        ready["checks"].as_array().unwrap().iter().map(|check| check["name"].clone()).collect();
    assert_eq!(json!(names), json!(["redis", "mysql", "partitions"]));
    let docs = api.get("/docs/").send().await.expect_text(200);
    assert!(docs.contains("swagger") && !docs.contains("https://"), "{docs}");
    let document = api.get("/openapi.json").send().await.expect(200);
    assert_eq!(document["openapi"], "3.1.0");
    for path in document["paths"].as_object().unwrap().keys() {
        assert!(path.starts_with("/v1/") || path.starts_with("/.well-known/"), "{path}");
    }
    for path in ["/v1", "/v1/", "/nowhere", "/openapi.yaml"] {
        api.get(path).send().await.problem(404, "not_found");
    }
    let queue = api.get("/v1/queues/nowhere").send().await;
    assert_eq!(queue.header("cache-control"), Some("no-store"), "a refusal may not be kept");
    world.show(10, 1_000).await;
    let shared = api.get("/v1/queues/show").send().await;
    assert_eq!(shared.header("cache-control"), Some("public, max-age=1"));
    let own = api.get("/v1/wallet").user(&new_user()).send().await;
    assert_eq!(own.header("cache-control"), Some("no-store"));
    let id = api.get("/healthz").header("x-request-id", "of-the-gateway").send().await;
    assert_eq!(id.header("x-request-id"), Some("of-the-gateway"));
}

async fn with(stores: &Stores, change: impl FnOnce(&mut ServeArgs)) -> (Instance, Api) {
    let mut args = stores.args();
    change(&mut args);
    let instance = Instance::start_with(&args).await;
    let api = Api::new(vec![[instance.public.clone(), instance.admin.clone()]]);
    (instance, api)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_asks_too_often_is_told_when_to_come_back() {
    let stores = Stores::new().await;
    let (_instance, api) = with(&stores, |args| {
        args.http.limit_user_per_second = Some("1".into());
        args.http.limit_user_burst = Some("5".into());
    })
    .await;
    let (user, other) = (new_user(), new_user());
    let answers = join_all((0..20).map(|_| api.get("/v1/wallet").user(&user).send())).await;
    let refused: Vec<_> = answers.iter().filter(|answer| answer.status != 200).collect();
    assert!((13..=15).contains(&refused.len()), "{answers:?}");
    for answer in refused {
        answer.problem(429, "rate_limited");
    }
    api.get("/v1/wallet").user(&other).send().await.expect(200);
    api.get("/healthz").send().await.expect_text(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_service_keys_only_a_service_may_charge() {
    const KEY: &str = "5ervice-c2b7a9d84e5f6a1b3c8d7e9f0a";
    let stores = Stores::new().await;
    let (_instance, api) = with(&stores, |args| {
        args.secrets.auth = Some("header,service-key".into());
        args.secrets.service_keys = Some(KEY.into());
    })
    .await;
    let user = new_user();
    let charge =
        || api.post("/v1/wallet/charges").user(&user).key(&new_key()).json(&json!({"amount": 100}));
    charge().send().await.problem(403, "forbidden");
    charge().header("authorization", "Bearer wrong").send().await.problem(401, "unauthenticated");
    charge().header("authorization", "Basic eDp4").send().await.problem(401, "unauthenticated");
    assert_eq!(api.balance(&user).await, 0);
    charge().header("authorization", &format!("Bearer {KEY}")).send().await.expect(201);
    assert_eq!(api.balance(&user).await, 100);

    let (_strict, api) = with(&stores, |args| {
        args.secrets.auth = Some("service-key".into());
        args.secrets.service_keys = Some(KEY.into());
    })
    .await;
    api.get("/v1/wallet").user(&user).send().await.problem(401, "unauthenticated");
    let by_service =
        api.get("/v1/wallet").user(&user).header("authorization", &format!("Bearer {KEY}"));
    assert_eq!(by_service.send().await.expect(200)["balance"], 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotated_key_still_checks_the_tokens_that_it_signed() {
    let world = World::start(1).await;
    world.show(10, 1_000).await;
    let guest = world.api.active_guest(SHOW).await;
    let new = "k2:7215ee9c7d9dc229d2921a40e899ec5f";
    let (_rotated, api) = with(&world.stores, |args| {
        args.secrets.token_keys = Some(format!("{new},{}", crate::support::servers::TOKEN_KEYS));
    })
    .await;
    let ticket = api.poll(SHOW, &guest.token).await.expect(200);
    assert!(ticket["token"].as_str().unwrap().starts_with("k2."), "it is signed anew");
    let (_retired, api) =
        with(&world.stores, |args| args.secrets.token_keys = Some(new.into())).await;
    api.poll(SHOW, &guest.token).await.problem(401, "invalid_queue_token");
    api.poll(SHOW, ticket["token"].as_str().unwrap()).await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_a_place_that_was_given_up_opens_nothing() {
    let world = World::start(1).await;
    world.show(10, 1_000).await;
    let api = &world.api;
    let before = api.active_guest(SHOW).await;
    let leave =
        |token: &str| api.delete(&format!("/v1/queues/{SHOW}/tokens/me")).token(token).send();
    leave(&before.token).await.expect(204);
    api.poll(SHOW, &before.token).await.problem(410, "queue_token_expired");

    // Its user is back, in another place.
    let joined = api.join(SHOW, &before.user).await.expect(201);
    let now = joined["token"].as_str().unwrap();
    assert_ne!(now, before.token);
    eventually("the new place is inside", || async {
        (api.poll(SHOW, now).await.expect(200)["status"] == "active").then_some(())
    })
    .await;
    api.poll(SHOW, &before.token).await.problem(410, "queue_token_expired");
    for refused in [
        api.hold(&before.token, NIGHT, &[1]).await,
        api.get(&format!("/v1/schedules/{NIGHT}/seats")).token(&before.token).send().await,
    ] {
        assert!([403, 410].contains(&refused.status), "{refused:?}");
    }
    leave(&before.token).await;
    let reservation = api.held(now, NIGHT, &[1]).await;

    // Nor does one of another line, or what is left of a good one.
    api.poll("elsewhere", now).await.problem(403, "wrong_queue");
    for spoiled in [&now[..now.len() - 1], &now[1..], &format!("{now}A"), &now.replace('.', "")] {
        api.poll(SHOW, spoiled).await.problem(401, "invalid_queue_token");
        api.pay(spoiled, &reservation, &new_key()).await.problem(401, "invalid_queue_token");
    }
}

#[tokio::test]
async fn every_script_compiles_and_changes_nothing_under_another_generation() {
    let stores = Stores::new().await;
    let mut redis = stores.redis().await;
    for script in usher::redis::scripts::ALL {
        redis.ask(&["SCRIPT", "LOAD", script.body()]).await;
        let keys: Vec<String> =
            script.keys().iter().map(|key| stores.key(0, &key.replace(':', "_"))).collect();
        let count = keys.len().to_string();
        let mut call = vec!["EVAL", script.body(), &count];
        call.extend(keys.iter().map(String::as_str));
        call.push("4711");
        assert_eq!(redis.ask(&call).await.int(), -1, "{}", script.name());
    }
    assert_eq!(redis.everything(&stores.prefix).await.len(), 0);
}
