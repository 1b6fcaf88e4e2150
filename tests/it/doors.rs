//! Who is held back before any work is done: callers who ask too often, everybody when there is too much, robots, and pages of other sites.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use axum::{Json, Router};
use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use usher::config::args::ServeArgs;

use crate::support::{
    Answer, Api, Instance, NIGHT, SHOW, Stores, World, eventually, new_key, new_user,
};

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

async fn world(change: impl FnOnce(&mut ServeArgs)) -> World {
    let stores = Stores::new().await;
    let mut args = stores.args();
    change(&mut args);
    let world = World::with_args(stores, &[args]).await;
    world.show(50, 1_000).await;
    world
}

async fn metrics(api: &Api) -> String {
    api.keyless_admin_call(Method::GET, "/metrics").send().await.expect_text(200)
}

fn refused(answers: &[Answer], status: u16, code: &str) -> usize {
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
async fn whoever_polls_too_often_may_still_hold_and_pay() {
    let world = world(|args| args.http.limit_poll_per_second = text("1")).await;
    let api = &world.api;
    let guest = api.guest(SHOW).await;
    api.charge(&guest.user, 1_000).await;
    let answers = join_all((0..60).map(|_| api.poll(SHOW, &guest.token))).await;
    assert!(refused(&answers, 429, "rate_limited") > 0, "{answers:?}");
    let other = api.guest(SHOW).await;
    api.poll(SHOW, &other.token).await.expect(200);
    eventually("the guest is inside", || async {
        (api.hold(&guest.token, NIGHT, &[1]).await.status == 201).then_some(())
    })
    .await;
    let mine = api.get("/v1/reservations/mine").user(&guest.user).send().await.expect(200);
    let held = mine["items"][0]["id"].as_str().unwrap();
    api.pay(&guest.token, held, &new_key()).await.expect(201);
    assert!(metrics(api).await.contains("usher_rate_limited_total{by=\"user\",kind=\"poll\"}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn joins_have_a_limit_in_all_and_an_address_is_known_behind_proxies() {
    let world = world(|args| {
        args.http.limit_global_joins_per_second = text("1");
        args.http.limit_address_per_second = text("1");
        args.http.trusted_proxies = text("1");
    })
    .await;
    let api = &world.api;
    // Each from elsewhere.
    let join = |at: usize| {
        let call = api.post(&format!("/v1/queues/{SHOW}/tokens")).user(&new_user());
        call.header("x-forwarded-for", &format!("198.51.100.{at}")).send()
    };
    let answers = join_all((0..200).map(join)).await;
    assert!(refused(&answers, 429, "rate_limited") > 0);
    assert!(answers.iter().any(|answer| answer.status == 201));

    // One address is refused, whatever the client itself wrote before the proxy's entry; others are not, whatever it wrote either.
    let from = |lie: usize, address: &str| {
        let forwarded = format!("203.0.113.{lie}, {address}");
        api.get("/v1/concerts").header("x-forwarded-for", &forwarded).send()
    };
    let flood = join_all((0..200).map(|lie| from(lie, "192.0.2.7"))).await;
    assert!(refused(&flood, 429, "rate_limited") > 0);
    from(7, "192.0.2.8").await.expect(200);
    // A host has a whole /64 of addresses to come from.
    let flood = join_all((0..200).map(|at| from(7, &format!("2001:db8::{at:x}")))).await;
    assert!(refused(&flood, 429, "rate_limited") > 0);
    from(7, "2001:db8:0:1::1").await.expect(200);
}

/// A relay before MySQL would do as well; what hangs here are answers that wait for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_too_much_is_being_answered_joins_go_first_and_payments_last() {
    let stores = Stores::new().await;
    let relays = crate::support::Relays::before(&stores).await;
    let mut args = relays.args(&stores);
    args.http.shed_in_flight = text("16");
    args.stores.ack = text("durable");
    args.stores.ack_timeout_ms = text("25000");
    let world = World::with_args(stores, &[args]).await;
    world.show(50, 1_000).await;
    let api = &world.api;
    let guest = api.active_guest(SHOW).await;
    let held = api.held(&guest.token, NIGHT, &[1]).await;
    api.charge(&guest.user, 1_000).await;

    // Answers that wait for MySQL, which is away, hold their places.
    relays.mysql.down();
    let hanging = Mutex::new(Vec::new());
    let hang = || {
        let (api, user) = (api.clone(), new_user());
        let charge = async move { api.charge_as(&user, 10, &new_key()).await };
        hanging.lock().unwrap().push(tokio::spawn(charge));
    };
    let joins_shed = async || api.join(SHOW, &new_user()).await.as_problem(503, "overloaded").ok();
    (0..8).for_each(|_| hang());
    eventually("joins are refused", joins_shed).await;
    api.poll(SHOW, &guest.token).await.expect(200);
    eventually("polls are refused", || async {
        // One by one, as a poll that is let in may take the last place from a charge.
        hang();
        api.poll(SHOW, &guest.token).await.as_problem(503, "overloaded").ok()
    })
    .await;
    // Whoever is inside may hold, and pay for what is held; health is no part of it.
    let payment = format!("/v1/payments/{}", new_user());
    let payment = api.get(&payment).token(&guest.token).send().await;
    assert!(payment.as_problem(503, "overloaded").is_err(), "{payment:?}");
    let seats = api.get(&format!("/v1/schedules/{NIGHT}/seats")).token(&guest.token).send().await;
    seats.expect(200);
    api.get("/healthz").send().await.expect_text(200);
    let told = metrics(api).await;
    for (kind, shed) in [("join", true), ("poll", true), ("book", false), ("pay", false)] {
        let none = format!("usher_shed_requests_total{{kind=\"{kind}\"}} 0\n");
        assert_eq!(!told.contains(&none), shed, "{kind}: {told}");
    }

    relays.mysql.up();
    for answer in join_all(hanging.into_inner().unwrap()).await {
        let answer = answer.unwrap();
        assert!(
            [201, 202].contains(&answer.status) || answer.as_problem(503, "overloaded").is_ok()
        );
    }
    eventually("joins are taken again", || async {
        [200, 201].contains(&api.join(SHOW, &new_user()).await.status).then_some(())
    })
    .await;
    api.pay(&guest.token, &held, &new_key()).await.expect(201);
}

/// A stand-in for the service of a widget.
struct Verifier {
    url: String,
    asked: Arc<AtomicUsize>,
}

const SECRET: &str = "0x1a2b";

async fn verifier() -> Verifier {
    type Fields = std::collections::HashMap<String, String>;
    async fn verify(
        State(asked): State<Arc<AtomicUsize>>,
        headers: HeaderMap,
        body: String,
    ) -> Json<Value> {
        asked.fetch_add(1, Ordering::SeqCst);
        assert_eq!(headers["content-type"], "application/x-www-form-urlencoded");
        let fields: Fields = form_urlencoded::parse(body.as_bytes()).into_owned().collect();
        assert_eq!((fields["secret"].as_str(), fields["remoteip"].as_str()), (SECRET, "127.0.0.1"));
        match fields["response"].as_str() {
            "never" => std::future::pending().await,
            "nonsense" => Json(json!("yes")),
            "huge" => Json(json!({"success": true, "padding": "x".repeat(100_000)})),
            response => Json(json!({"success": response == "good & well"})),
        }
    }
    let asked = Arc::new(AtomicUsize::new(0));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/siteverify", listener.local_addr().unwrap());
    let router = Router::new().route("/siteverify", post(verify)).with_state(asked.clone());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    Verifier { url, asked }
}

fn challenged(api: &Api, token: &str) -> impl Future<Output = Answer> {
    api.post(&format!("/v1/queues/{SHOW}/tokens"))
        .user(&new_user())
        .header("usher-challenge", token)
        .send()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn robots_stay_outside() {
    const KEY: &str = "5ervice-c2b7a9d84e5f6a1b3c8d7e9f0a";
    let verifier = verifier().await;
    let world = world(|args| {
        args.http.challenge_url = Some(verifier.url.clone());
        args.http.challenge_secret = text(SECRET);
        args.http.challenge_timeout_ms = text("30000");
        args.http.request_timeout_ms = text("60000");
        args.secrets.auth = text("header,service-key");
        args.secrets.service_keys = text(KEY);
    })
    .await;
    let api = &world.api;
    // Nobody is asked about what was not sent, nor about whoever has no name.
    api.join(SHOW, &new_user()).await.problem(403, "forbidden");
    api.post(&format!("/v1/queues/{SHOW}/tokens")).send().await.problem(401, "unauthenticated");
    challenged(api, &"x".repeat(9_000)).await.problem(403, "forbidden");
    assert_eq!(verifier.asked.load(Ordering::SeqCst), 0);
    challenged(api, "bad").await.problem(403, "forbidden");
    challenged(api, "good & well").await.expect(201);
    for unclear in ["nonsense", "huge"] {
        challenged(api, unclear).await.problem(503, "overloaded");
    }
    let backend = api.post(&format!("/v1/queues/{SHOW}/tokens")).user(&new_user());
    backend.header("authorization", &format!("Bearer {KEY}")).send().await.expect(201);
    // The page that joins for its visitor is held to it as well.
    api.post(&format!("/waiting/{SHOW}/place")).send().await.problem(403, "forbidden");
    let told = metrics(api).await;
    for outcome in ["missing", "failed", "passed", "unavailable"] {
        assert!(
            told.contains(&format!("usher_challenges_total{{outcome=\"{outcome}\"}}")),
            "{told}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_challenge_that_nobody_checks_may_be_waived() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let refuses = format!("http://{nobody}/siteverify");
    let silent = verifier().await;
    for (url, fail_open, joined) in
        [(&refuses, "true", true), (&refuses, "false", false), (&silent.url, "false", false)]
    {
        let world = world(|args| {
            args.http.challenge_url = Some(url.clone());
            args.http.challenge_secret = text(SECRET);
            args.http.challenge_timeout_ms = text("500");
            args.http.challenge_fail_open = text(fail_open);
        })
        .await;
        let answer = challenged(&world.api, "never").await;
        if joined {
            answer.expect(201);
        } else {
            answer.problem(503, "overloaded");
        }
        world.api.join(SHOW, &new_user()).await.problem(403, "forbidden");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_listed_origins_may_call_and_no_others() {
    const OURS: &str = "https://shop.example";
    let stores = Stores::new().await;
    let mut args = stores.args();
    let closed = Instance::start_with(&args).await;
    args.http.cors_origins = text(OURS);
    let open = Instance::start_with(&args).await;
    let api =
        |instance: &Instance| Api::new(vec![[instance.public.clone(), instance.admin.clone()]]);
    let (closed, open) = (api(&closed), api(&open));
    let preflight = async |api: &Api, origin: &str| {
        let call = api.call(Method::OPTIONS, "/v1/payments").header("origin", origin);
        let call = call.header("access-control-request-method", "POST");
        call.header("access-control-request-headers", "queue-token,idempotency-key,content-type")
            .send()
            .await
    };
    let allowed = preflight(&open, OURS).await;
    assert_eq!(allowed.header("access-control-allow-origin"), Some(OURS));
    let headers = allowed.header("access-control-allow-headers").unwrap_or_default().to_owned();
    assert!(headers.contains("queue-token") && headers.contains("idempotency-key"), "{headers}");
    assert_eq!(allowed.header("access-control-allow-credentials"), None);
    assert!(allowed.header("x-request-id").is_some());
    for other in
        ["https://evil.example", "http://shop.example", "https://shop.example.evil.example", "null"]
    {
        assert_eq!(
            preflight(&open, other).await.header("access-control-allow-origin"),
            None,
            "{other}"
        );
    }
    // Refusals can be read by the page, too: it wants to know when to come back.
    let refusal = open.get("/v1/wallet").header("origin", OURS).send().await;
    refusal.problem(401, "unauthenticated");
    assert_eq!(refusal.header("access-control-allow-origin"), Some(OURS));
    assert!(refusal.header("access-control-expose-headers").unwrap().contains("retry-after"));
    for (api, origin) in [(&closed, OURS), (&open, "https://evil.example")] {
        let answer = api.get("/v1/concerts").header("origin", origin).send().await;
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
    assert_eq!(preflight(&closed, OURS).await.header("access-control-allow-origin"), None);
    let admin = open.admin_call(Method::GET, "/admin/queues").header("origin", OURS).send().await;
    assert_eq!(
        admin.header("access-control-allow-origin"),
        None,
        "operators' pages are the console's own"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_keep_to_themselves() {
    let world = world(|_| {}).await;
    let api = &world.api;
    for (page, admin) in [("/", false), ("/waiting/show", false), ("/", true)] {
        let answer = match admin {
            false => api.get(page).send().await,
            true => api.keyless_admin_call(Method::GET, page).send().await,
        };
        let policy = answer.header("content-security-policy").unwrap();
        assert!(
            policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
            "{policy}"
        );
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"));
    }
    // What is no page is not taken for one, either.
    let wallet = api.get("/v1/wallet").user(&new_user()).send().await;
    assert_eq!(wallet.header("x-content-type-options"), Some("nosniff"));
    let place = api.post("/waiting/show/place").send().await;
    let cookie = place.header("set-cookie").unwrap();
    for word in ["usher-show=", "Secure", "HttpOnly", "SameSite=Lax", "Path=/"] {
        assert!(cookie.contains(word), "{cookie}");
    }
}
