//! No secret is disclosed in the log at its most verbose level, in problems, in metrics, or by
//! commands that print settings.

use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use reqwest::Method;
use serde_json::json;

use crate::support::servers::{ADMIN_KEY, REDIS_USER};
use crate::support::{
    ApiResponse, CONCERT, SCHEDULE, TestStores, TestWorld, UsherProcess, eventually, new_key,
    new_user,
};

const SERVICE_KEY: &str = "5ervice-canary-a9d84e5f6a1b3c8d7e9f0a";
const VIEWER_KEY: &str = "0bserver-canary-4e5f6a1b3c8d7e9f0a";
const JWT_KEY: &str = "7c9e6679-canary-0a5be1d94b1f0a7c9e66";
const TOKEN_SECRET: &str = "d41d8cd98f-canary-0998ecf8427e8f0a";
const OLD_TOKEN_SECRET: &str = "7215ee9c7d-canary-1a40e899ec5f8f0a";
/// Wrong credentials that resemble right ones.
const NEAR_MISSES: [&str; 3] =
    ["canary-of-a-mistyped-admin-key", "canary-of-a-mistyped-service-key", "canary-of-a-body"];

fn settings(log: &str) -> Vec<(&'static str, String)> {
    let text = str::to_owned;
    vec![
        ("RUST_LOG", text("trace")),
        ("USHER_LOG", text(log)),
        ("USHER_AUTH", text("header,service-key,jwt")),
        ("USHER_SERVICE_KEYS", text(SERVICE_KEY)),
        ("USHER_JWT_KEY", text(JWT_KEY)),
        ("USHER_ADMIN_KEYS", format!("ann:viewer:{VIEWER_KEY}")),
        ("USHER_TOKEN_KEYS", format!("k2:{TOKEN_SECRET},k1:{OLD_TOKEN_SECRET}")),
    ]
}

/// The secrets in the settings.
fn configured(stores: &TestStores) -> Vec<String> {
    let password = |url: &str| {
        let userinfo = url.split_once("://").unwrap().1.split('@').next().unwrap();
        userinfo.split_once(':').unwrap().1.to_owned()
    };
    let mut all = [ADMIN_KEY, VIEWER_KEY, SERVICE_KEY, JWT_KEY, TOKEN_SECRET, OLD_TOKEN_SECRET]
        .map(str::to_owned)
        .to_vec();
    all.extend([password(&stores.mysql_url), REDIS_USER.split_once(':').unwrap().1.to_owned()]);
    assert!(all.iter().all(|secret| secret.len() > 10), "{all:?}");
    all
}

fn jwt(user: &str) -> String {
    let claims = json!({"sub": user, "exp": jsonwebtoken::get_current_timestamp() + 600});
    let part = |value: serde_json::Value| BASE64.encode(value.to_string());
    let message = format!("{}.{}", part(json!({"alg": "HS256"})), part(claims));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, JWT_KEY.as_bytes());
    format!("{message}.{}", BASE64.encode(ring::hmac::sign(&key, message.as_bytes())))
}

fn assert_absent(canaries: &[String], place: &str, text: &str) {
    for canary in canaries {
        if let Some(at) = text.find(canary.as_str()) {
            let (begin, end) =
                (text[..at].rfind('\n').map_or(0, |at| at + 1), text[at..].find('\n'));
            panic!(
                "{canary} is in {place}: {}",
                &text[begin..end.map_or(text.len(), |end| at + end)]
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_in_trace_logs_problems_or_metrics() {
    let world = TestWorld::start(1).await;
    world.put_show(10, 1_000).await;
    for log in ["text", "json"] {
        let process = UsherProcess::start_with(&world.stores, &settings(log)).await;
        let canaries = call_with_secrets(&process, configured(&world.stores)).await;
        let metrics =
            process.api().keyless_admin_call(Method::GET, "/metrics").send().await.expect_text(200);
        assert_absent(&canaries, "the metrics", &metrics);
        eventually("the log is at trace level", async || {
            process.log().contains("TRACE").then_some(())
        })
        .await;
        process.terminate();
        let mut process = process;
        process.wait_for_exit().await;
        let log = process.log();
        assert!(
            log.contains("answered") && log.len() > 10_000,
            "this is the log of a process that served: {log}"
        );
        assert_absent(&canaries, "the log", &log);
    }
}

/// Calls with every kind of secret, valid and invalid. Returns all secrets.
async fn call_with_secrets(process: &UsherProcess, mut canaries: Vec<String>) -> Vec<String> {
    let api = process.api();
    let (user, key) = (new_user(), new_key());
    let bearer = format!("Bearer {}", jwt(&user));
    let join = api.post(&format!("/v1/queues/{CONCERT}/tokens")).header("authorization", &bearer);
    let token = join.send().await.expect(201)["token"].as_str().unwrap().to_owned();
    let charge = |key: &str, bearer: &str, body: serde_json::Value| {
        api.post("/v1/wallet/charges")
            .header("authorization", bearer)
            .user(&user)
            .key(key)
            .json(&body)
    };
    let by_service = format!("Bearer {SERVICE_KEY}");
    charge(&key, &by_service, json!({"amount": 5_000})).send().await.expect(201);
    // Leaving the queue would end the admission, so the user is admitted first.
    eventually("the user is admitted", async || {
        let ticket = api.poll(CONCERT, &token).await.expect(200);
        (ticket["status"] == "active").then_some(())
    })
    .await;
    let seat = crate::support::new_user().as_bytes()[0] % 5 + 1;
    let held = api.hold(&token, SCHEDULE, &[u32::from(seat)]).await;
    let pay_key = new_key();
    if let Some(reservation) = held.body["id"].as_str() {
        api.pay(&token, reservation, &pay_key).await.expect(201);
        api.pay(&token, reservation, &pay_key).await.expect(201);
    }
    let mac = token.rsplit_once('.').unwrap().1.to_owned();
    // One in four ends with an A already.
    let other = if token.ends_with('A') { 'Q' } else { 'A' };
    let forged = format!("{}{other}", &token[..token.len() - 1]);
    let signature = bearer.rsplit_once('.').unwrap().1.to_owned();
    canaries.extend([
        token.clone(),
        mac,
        forged.clone(),
        key.clone(),
        pay_key.clone(),
        bearer[7..].to_owned(),
        signature,
    ]);
    canaries.extend(NEAR_MISSES.map(str::to_owned));

    let me = format!("/v1/queues/{CONCERT}/tokens/me");
    let [admin, service, body] = NEAR_MISSES;
    let refusals: Vec<ApiResponse> = vec![
        api.get(&me).token(&forged).send().await,
        api.get(&format!("{me}/events?token={forged}")).send_head().await,
        api.get(&format!("{me}/events?tokens={token}")).send_head().await,
        api.get(&format!("/v1/queues/{CONCERT}/check"))
            .header("cookie", &format!("usher-{CONCERT}={forged}"))
            .send()
            .await,
        api.get("/v1/wallet").header("authorization", &format!("Bearer {service}")).send().await,
        api.get("/v1/wallet").header("authorization", &format!("{bearer}x")).send().await,
        charge(&key, &by_service, json!({"amount": 4_000})).send().await,
        charge(&pay_key, &bearer, json!({"amount": 4_000})).send().await,
        charge(&format!("{key} {key}"), &by_service, json!({"amount": 1})).send().await,
        charge(&new_key(), &by_service, json!({"amount": body})).send().await,
        charge(&new_key(), &by_service, json!({ body: 1 })).send().await,
        api.keyless_admin_call(Method::GET, "/admin/queues")
            .header("authorization", &format!("Bearer {admin}"))
            .send()
            .await,
        api.call(Method::GET, "/v1/wallet")
            .header("authorization", &format!("Bearer {ADMIN_KEY}"))
            .send()
            .await,
    ];
    for answer in refusals {
        assert!(answer.status >= 400, "{answer:?}");
        // The name of an unknown field appears in the path of the error, and nothing else does.
        let others: Vec<String> = canaries.iter().filter(|it| *it != body).cloned().collect();
        assert_absent(&others, "a refusal", &format!("{} {:?}", answer.text, answer.headers));
    }
    canaries
}

/// Invalid and valid settings, with the commands that check them.
#[tokio::test]
async fn no_secret_is_in_config_check_output() {
    let stores = TestStores::new().await;
    let mut canaries = configured(&stores);
    let usher = |args: &[&str], change: &[(&str, &str)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_usher"));
        command.args(args).env_clear().envs(settings("text"));
        command
            .env("USHER_REDIS_URL", stores.redis_url())
            .env("USHER_MYSQL_URL", &stores.mysql_url);
        command
            .env("USHER_KEY_PREFIX", &stores.prefix)
            .env("USHER_PARTITIONS", "4")
            .env("USHER_ADMIN_KEY", ADMIN_KEY);
        let said = command.envs(change.iter().copied()).output().unwrap();
        let text =
            [said.stdout, said.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        (said.status.code().unwrap(), text)
    };
    let (code, said) = usher(&["config", "check", "--connect"], &[]);
    assert_eq!(code, 0, "{said}");
    assert_absent(&canaries, "the output for valid settings", &said);
    for line in [
        "USHER_LISTEN = 127.0.0.1:8080 (default)",
        "USHER_PARTITIONS = 4 (environment)",
        "the settings are valid",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    // Each value is invalid and contains a secret.
    let wrong = [
        ("USHER_ADMIN_KEY", "canary-too-short"),
        ("USHER_TOKEN_KEYS", "canary-without-a-kid-but-long-enough"),
        ("USHER_SERVICE_KEYS", "changeme-canary-changeme-changeme-changeme"),
        ("USHER_JWT_KEY", "canary-short"),
        ("USHER_REDIS_URL", "redises://usher:canary@127.0.0.1"),
        ("USHER_MYSQL_URL", "mysql://usher:canary@127.0.0.1"),
    ];
    canaries.push("canary".to_owned());
    for command in [&["config", "check"][..], &["serve"]] {
        let (code, said) = usher(command, &wrong);
        assert_eq!(code, 1, "{said}");
        assert_absent(&canaries, "the output for invalid settings", &said);
        for (setting, _) in wrong {
            assert!(said.contains(&format!("{setting} (--")), "{setting}: {said}");
        }
    }
    // An unavailable store is reported without its URL.
    let elsewhere = [("USHER_REDIS_URL", "redis://usher:canary@127.0.0.1:1")];
    let (code, said) = usher(&["config", "check", "--connect"], &elsewhere);
    assert_eq!(code, 1, "{said}");
    assert_absent(&canaries, "the output for an unavailable store", &said);
}
