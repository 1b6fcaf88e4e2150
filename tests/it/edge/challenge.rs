//! The challenge for robots: a join needs a token that the verifier of the widget accepts.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::rate_limits::{metrics, text, world};
use crate::support::{ApiClient, ApiResponse, CONCERT, new_user};

/// A stub of the verifier.
struct StubVerifier {
    url: String,
    asked: Arc<AtomicUsize>,
}

const SECRET: &str = "0x1a2b";

async fn verifier() -> StubVerifier {
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
    StubVerifier { url, asked }
}

fn challenged(api: &ApiClient, token: &str) -> impl Future<Output = ApiResponse> {
    api.post(&format!("/v1/queues/{CONCERT}/tokens"))
        .user(&new_user())
        .header("usher-challenge", token)
        .send()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_challenge_is_refused() {
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
    // The verifier is not called for a missing token, or for a user without an identity.
    api.join(CONCERT, &new_user()).await.problem(403, "forbidden");
    api.post(&format!("/v1/queues/{CONCERT}/tokens")).send().await.problem(401, "unauthenticated");
    challenged(api, &"x".repeat(9_000)).await.problem(403, "forbidden");
    assert_eq!(verifier.asked.load(Ordering::SeqCst), 0);
    challenged(api, "bad").await.problem(403, "forbidden");
    challenged(api, "good & well").await.expect(201);
    for unclear in ["nonsense", "huge"] {
        challenged(api, unclear).await.problem(503, "overloaded");
    }
    let backend = api.post(&format!("/v1/queues/{CONCERT}/tokens")).user(&new_user());
    backend.header("authorization", &format!("Bearer {KEY}")).send().await.expect(201);
    // The waiting page needs a valid token, too.
    api.post(&format!("/waiting/{CONCERT}/place")).send().await.problem(403, "forbidden");
    let reported = metrics(api).await;
    for outcome in ["missing", "failed", "passed", "unavailable"] {
        assert!(
            reported.contains(&format!("usher_challenges_total{{outcome=\"{outcome}\"}}")),
            "{reported}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn challenge_may_be_waived_when_its_verifier_is_down() {
    let free_address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let refuses = format!("http://{free_address}/siteverify");
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
        world.api.join(CONCERT, &new_user()).await.problem(403, "forbidden");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_page_has_the_login_address_of_the_site() {
    let world = world(|args| args.http.login_url = text("https://login.example/?next=%2F")).await;
    let html = world.api.get(&format!("/waiting/{CONCERT}")).send().await.expect_text(200);
    assert!(html.contains("https://login.example/?next=%2F"), "{html}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_page_may_load_the_widget() {
    let verifier = verifier().await;
    let world = world(|args| {
        args.http.challenge_url = Some(verifier.url.clone());
        args.http.challenge_secret = text(SECRET);
        args.http.challenge_widget = text("turnstile:0x4AAA");
    })
    .await;
    let page = world.api.get(&format!("/waiting/{CONCERT}")).send().await;
    let policy = page.header("content-security-policy").unwrap().to_owned();
    for directive in ["script-src 'self'", "style-src 'self'", "connect-src 'self'", "frame-src"] {
        let allowed = format!("{directive} https://challenges.cloudflare.com;");
        assert!(policy.contains(&allowed), "{policy}");
    }
    let html = page.expect_text(200);
    assert!(html.contains("0x4AAA") && !html.contains(SECRET), "{html}");
    let other = world.api.get("/").send().await;
    assert!(!other.header("content-security-policy").unwrap().contains("cloudflare"));
}
