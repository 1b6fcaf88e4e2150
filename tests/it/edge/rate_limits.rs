//! Rate limits by user, by address and for all callers, and load shedding.

use std::sync::Mutex;

use futures::future::join_all;
use reqwest::Method;
use usher::config::args::ServeArgs;

use super::api_with;
use crate::support::{
    ApiClient, ApiResponse, CONCERT, SCHEDULE, TestStores, TestWorld, eventually, new_key, new_user,
};

pub(super) fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

pub(super) async fn world(change: impl FnOnce(&mut ServeArgs)) -> TestWorld {
    let stores = TestStores::new().await;
    let mut args = stores.args();
    change(&mut args);
    let world = TestWorld::with_args(stores, &[args]).await;
    world.put_show(50, 1_000).await;
    world
}

pub(super) async fn metrics(api: &ApiClient) -> String {
    api.keyless_admin_call(Method::GET, "/metrics").send().await.expect_text(200)
}

fn refused(answers: &[ApiResponse], status: u16, code: &str) -> usize {
    let refused: Vec<_> = answers.iter().filter(|answer| answer.status == status).collect();
    for answer in &refused {
        answer.problem(status, code);
        assert!(
            answer
                .header("retry-after")
                .is_some_and(|seconds| seconds.parse::<u32>().unwrap() >= 1)
        );
    }
    refused.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn user_over_the_poll_limit_may_still_hold_and_pay() {
    let world = world(|args| args.http.limit_poll_per_second = text("1")).await;
    let api = &world.api;
    let guest = api.join_new_user(CONCERT).await;
    api.charge(&guest.user, 1_000).await;
    let answers = join_all((0..60).map(|_| api.poll(CONCERT, &guest.token))).await;
    assert!(refused(&answers, 429, "rate_limited") > 0, "{answers:?}");
    let other = api.join_new_user(CONCERT).await;
    api.poll(CONCERT, &other.token).await.expect(200);
    eventually("the user is active", || async {
        (api.hold(&guest.token, SCHEDULE, &[1]).await.status == 201).then_some(())
    })
    .await;
    let mine = api.get("/v1/reservations/mine").user(&guest.user).send().await.expect(200);
    let held = mine["items"][0]["id"].as_str().unwrap();
    api.pay(&guest.token, held, &new_key()).await.expect(201);
    assert!(metrics(api).await.contains("usher_rate_limited_total{by=\"user\",kind=\"poll\"}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn user_over_the_limit_gets_retry_after() {
    let stores = TestStores::new().await;
    let (_instance, api) = api_with(&stores, |args| {
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
async fn joins_are_limited_in_total_and_by_address_behind_proxies() {
    let world = world(|args| {
        args.http.limit_global_joins_per_second = text("1");
        args.http.limit_address_per_second = text("1");
        args.http.trusted_proxies = text("1");
    })
    .await;
    let api = &world.api;
    // Each from another address.
    let join = |at: usize| {
        let call = api.post(&format!("/v1/queues/{CONCERT}/tokens")).user(&new_user());
        call.header("x-forwarded-for", &format!("198.51.100.{at}")).send()
    };
    let answers = join_all((0..200).map(join)).await;
    assert!(refused(&answers, 429, "rate_limited") > 0);
    assert!(answers.iter().any(|answer| answer.status == 201));

    // One address is limited, whatever the client itself wrote before the proxy's entry. Others are
    // not limited.
    let from = |lie: usize, address: &str| {
        let forwarded = format!("203.0.113.{lie}, {address}");
        api.get("/v1/concerts").header("x-forwarded-for", &forwarded).send()
    };
    let flood = join_all((0..200).map(|lie| from(lie, "192.0.2.7"))).await;
    assert!(refused(&flood, 429, "rate_limited") > 0);
    from(7, "192.0.2.8").await.expect(200);
    // An IPv6 host has a whole /64.
    let flood = join_all((0..200).map(|at| from(7, &format!("2001:db8::{at:x}")))).await;
    assert!(refused(&flood, 429, "rate_limited") > 0);
    from(7, "2001:db8:0:1::1").await.expect(200);
}

/// Slow responses come from requests that wait for MySQL.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overload_sheds_joins_first_and_payments_last() {
    let stores = TestStores::new().await;
    let relays = crate::support::StoreRelays::before(&stores).await;
    let mut args = relays.args(&stores);
    args.http.shed_in_flight = text("16");
    args.stores.ack = text("durable");
    args.stores.ack_timeout_ms = text("25000");
    let world = TestWorld::with_args(stores, &[args]).await;
    world.put_show(50, 1_000).await;
    let api = &world.api;
    let guest = api.active_user(CONCERT).await;
    let held = api.hold_seats(&guest.token, SCHEDULE, &[1]).await;
    api.charge(&guest.user, 1_000).await;

    // Requests that wait for MySQL, which is unavailable, occupy the limit.
    relays.mysql.down();
    let hanging = Mutex::new(Vec::new());
    let hang = || {
        let (api, user) = (api.clone(), new_user());
        let charge = async move { api.charge_with_key(&user, 10, &new_key()).await };
        hanging.lock().unwrap().push(tokio::spawn(charge));
    };
    let joins_shed =
        async || api.join(CONCERT, &new_user()).await.as_problem(503, "overloaded").ok();
    (0..8).for_each(|_| hang());
    eventually("joins are refused", joins_shed).await;
    api.poll(CONCERT, &guest.token).await.expect(200);
    eventually("polls are refused", || async {
        // One after the other, because an accepted poll may take the last permit from a charge.
        hang();
        api.poll(CONCERT, &guest.token).await.as_problem(503, "overloaded").ok()
    })
    .await;
    // Active users may hold and pay. Health checks are not limited.
    let payment = format!("/v1/payments/{}", new_user());
    let payment = api.get(&payment).token(&guest.token).send().await;
    assert!(payment.as_problem(503, "overloaded").is_err(), "{payment:?}");
    let seats =
        api.get(&format!("/v1/schedules/{SCHEDULE}/seats")).token(&guest.token).send().await;
    seats.expect(200);
    api.get("/healthz").send().await.expect_text(200);
    let reported = metrics(api).await;
    for (kind, shed) in [("join", true), ("poll", true), ("book", false), ("pay", false)] {
        let none = format!("usher_shed_requests_total{{kind=\"{kind}\"}} 0\n");
        assert_eq!(!reported.contains(&none), shed, "{kind}: {reported}");
    }

    relays.mysql.up();
    for answer in join_all(hanging.into_inner().unwrap()).await {
        let answer = answer.unwrap();
        assert!(
            [201, 202].contains(&answer.status) || answer.as_problem(503, "overloaded").is_ok()
        );
    }
    eventually("joins are accepted again", || async {
        [200, 201].contains(&api.join(CONCERT, &new_user()).await.status).then_some(())
    })
    .await;
    api.pay(&guest.token, &held, &new_key()).await.expect(201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn joins_and_polls_report_the_rate_limit() {
    let stores = TestStores::new().await;
    let mut args = stores.args();
    args.http.limit_user_per_second = Some("1".into());
    args.http.limit_user_burst = Some("3".into());
    let world = TestWorld::with_args(stores, &[args]).await;
    world.put_queue(CONCERT, serde_json::json!({"max_active": 1})).await;
    let joined = world.api.join(CONCERT, &new_user()).await;
    let token = joined.expect(201)["token"].as_str().unwrap().to_owned();
    let policy = Some("\"user\";q=3;w=3");
    assert_eq!(joined.header("ratelimit-policy"), policy);
    assert_eq!(joined.header("ratelimit"), Some("\"user\";r=2;t=1"));
    let mut refused = None;
    for _ in 0..1_000 {
        let polled = world.api.poll(CONCERT, &token).await;
        assert_eq!(polled.header("ratelimit-policy"), policy);
        let state = polled.header("ratelimit").unwrap().to_owned();
        if polled.status == 429 {
            assert_eq!(state, "\"user\";r=0;t=1");
            refused = Some(polled);
            break;
        }
        assert!(state.starts_with("\"user\";r="), "{state}");
    }
    refused.expect("the limit is reached").problem(429, "rate_limited");
}
