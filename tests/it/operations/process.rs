//! The binary: shutdown, output, and refused settings.

use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::Value;
use tokio::process::Command;

use crate::support::world::{concert_definition, fast_queue_settings};
use crate::support::{
    ApiClient, CONCERT, SCHEDULE, TestStores, UsherProcess, eventually, new_key, new_user,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn terminated_process_finishes_its_requests() {
    let stores = TestStores::new().await;
    let mut process = UsherProcess::start(&stores).await;
    let api = ApiClient::new(vec![[process.public.clone(), process.admin.clone()]]);
    api.put("/admin/queues/show", &fast_queue_settings()).await.expect(200);
    api.put("/admin/concerts/show", &concert_definition(1_000, 1_000)).await.expect(200);

    let asked = Instant::now();
    let stop = AtomicBool::new(false);
    let (mut unready, mut gone) = (None, None);
    // Users book until the server stops responding. Every response must be valid, however late.
    let booker = async |nth: u32| {
        let mut bought = 0;
        for seat in (nth..=1_000).step_by(20) {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let began = Instant::now();
            let outcome: Result<(), reqwest::Error> = async {
                let user = new_user();
                let ticket =
                    api.post("/v1/queues/show/tokens").user(&user).try_send().await?.expect(201);
                let token = ticket["token"].as_str().unwrap();
                let charge = api.post("/v1/wallet/charges").user(&user).key(&new_key());
                charge.json(&serde_json::json!({"amount": 1_000})).try_send().await?.expect(201);
                let wish = serde_json::json!({"schedule_id": SCHEDULE, "seats": [seat]});
                let held = api
                    .post("/v1/reservations")
                    .token(token)
                    .json(&wish)
                    .try_send()
                    .await?
                    .expect(201);
                let id = held["id"].as_str().unwrap();
                api.payment(token, id, &new_key()).try_send().await?.expect(201);
                Ok(())
            }
            .await;
            if let Err(error) = outcome {
                return (bought, Some((began, error)));
            }
            bought += 1;
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
        (bought, None)
    };
    let bookers = async {
        let outcomes = join_all((1..=20).map(booker)).await;
        stop.store(true, Ordering::Relaxed);
        outcomes
    };
    let watching = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        process.terminate();
        // A new connection for each request, to see the listener close.
        while gone.is_none() {
            match reqwest::get(format!("{}/readyz", process.public)).await {
                Ok(answer) if answer.status() == 503 => {
                    unready.get_or_insert_with(Instant::now);
                }
                Ok(answer) => assert!(answer.status() == 200 && unready.is_none(), "{answer:?}"),
                Err(_) => gone = Some(Instant::now()),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let (outcomes, ()) = tokio::join!(bookers, watching);
    let status = process.wait_for_exit().await;
    assert_eq!(status.code(), Some(0), "{}", process.log());

    let (unready, gone) = (unready.expect("/readyz reported that it is not ready"), gone.unwrap());
    assert!(gone - unready > Duration::from_secs(1), "load balancers had time to notice");
    assert!(asked.elapsed() < Duration::from_secs(10));
    let mut bought = 0;
    for (count, error) in outcomes {
        bought += count;
        if let Some((began, error)) = error {
            // Only bookings that started shortly before the listener closed were cut off.
            assert!(error.is_connect() || error.is_request(), "{error:?}");
            assert!(gone.saturating_duration_since(began) < Duration::from_secs(1), "{error:?}");
        }
    }
    assert!(bought > 20, "there was load: {bought}");
    // The outbox was written before the process ended, because no other instance runs.
    let facts = stores.audit().await;
    assert!(facts.payments_that_are("confirmed") >= bought, "{bought}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_process_restarts_with_its_state() {
    let stores = TestStores::new().await;
    let mut process = UsherProcess::start(&stores).await;
    let api = ApiClient::new(vec![[process.public.clone(), process.admin.clone()]]);
    api.put("/admin/queues/show", &fast_queue_settings()).await.expect(200);
    let guest = api.active_user(CONCERT).await;
    api.charge(&guest.user, 7).await;
    process.terminate();
    eventually("/readyz reports draining", || async {
        let answer = api.get("/readyz").send().await;
        (answer.status == 503).then(|| assert!(answer.text.contains("draining"), "{}", answer.text))
    })
    .await;
    assert_eq!(api.get("/healthz").send().await.status, 200);
    assert_eq!(process.wait_for_exit().await.code(), Some(0), "{}", process.log());

    let process = UsherProcess::start(&stores).await;
    let api = ApiClient::new(vec![[process.public.clone(), process.admin.clone()]]);
    assert_eq!(api.balance(&guest.user).await, 7);
    assert_eq!(api.poll(CONCERT, &guest.token).await.expect(200)["status"], "active");
    process.kill().await;
}

async fn usher(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_usher"));
    command.args(arguments).env_clear().output().await.unwrap()
}

#[tokio::test]
async fn printed_openapi_document_matches_the_served_one() {
    let world = crate::support::TestWorld::start(1).await;
    let served = world.api.get("/openapi.json").send().await.expect(200);
    let printed = usher(&["openapi"]).await;
    assert_eq!(serde_json::from_slice::<Value>(&printed.stdout).unwrap(), served);
    let served = world
        .api
        .keyless_admin_call(reqwest::Method::GET, "/openapi.json")
        .send()
        .await
        .expect(200);
    let printed = usher(&["openapi", "--admin"]).await;
    assert_eq!(serde_json::from_slice::<Value>(&printed.stdout).unwrap(), served);
}

#[tokio::test]
async fn invalid_settings_are_named_and_nothing_starts() {
    let invalid = ["--listen", "nowhere", "--admin-key", "short", "--wallet-limit", "0"];
    let output = usher(&[&["serve"], invalid.as_slice()].concat()).await;
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    for name in [
        "USHER_LISTEN",
        "USHER_AUTH",
        "USHER_ADMIN_KEY",
        "USHER_TOKEN_KEYS",
        "USHER_REDIS_URL",
        "USHER_MYSQL_URL",
        "USHER_WALLET_LIMIT",
    ] {
        assert!(said.contains(name), "{name}: {said}");
    }
    assert!(!said.contains("short"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_schema_and_other_partition_count_are_refused() {
    let serve = async |stores: &TestStores, partitions: &str| {
        let redis = stores.redis_url();
        let arguments = [
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--admin-listen",
            "127.0.0.1:0",
            "--auth",
            "header",
            "--redis-url",
            &redis,
            "--mysql-url",
            &stores.mysql_url,
            "--partitions",
            partitions,
            "--admin-key",
            crate::support::servers::ADMIN_KEY,
            "--token-keys",
            crate::support::servers::TOKEN_KEYS,
        ];
        let output = usher(&arguments).await;
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = serve(&TestStores::without_schema().await, "4").await;
    assert!(code == Some(1) && said.contains("usher migrate"), "{said}");
    let (code, said) = serve(&TestStores::new().await, "8").await;
    assert!(
        code == Some(1) && said.contains("USHER_PARTITIONS is 8") && said.contains('4'),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_migration_records_the_partitions() {
    let migrate = async |stores: &TestStores, more: &[&str]| {
        let mut arguments = vec!["migrate", "--mysql-url", &stores.mysql_url];
        arguments.extend(more);
        let output = usher(&arguments).await;
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let single = TestStores::without_schema().await;
    assert_eq!(migrate(&single, &[]).await.0, Some(0));
    assert_eq!(migrate(&single, &["--partitions", "8"]).await.0, Some(0));
    // The recorded number is kept, whatever the default would be now.
    assert_eq!(migrate(&single, &["--redis-url", "redis-cluster://h"]).await.0, Some(0));
    let (code, said) = migrate(&single, &["--partitions", "64"]).await;
    assert!(code == Some(1) && said.contains("has 8 partitions"), "{said}");

    let cluster = TestStores::without_schema().await;
    assert_eq!(migrate(&cluster, &["--redis-url", "redis-cluster://h"]).await.0, Some(0));
    assert_eq!(migrate(&cluster, &["--partitions", "64"]).await.0, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_is_found_in_the_log_by_its_trace() {
    let stores = TestStores::new().await;
    let settings = [("USHER_LOG", "json".to_owned()), ("RUST_LOG", "usher=debug".to_owned())];
    let process = UsherProcess::start_with(&stores, &settings).await;
    let api = process.api();
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let traced =
        api.get("/v1/concerts").header("traceparent", &format!("00-{trace}-00f067aa0ba902b7-01"));
    let traced = traced.send().await.header("x-request-id").unwrap().to_owned();
    let forged =
        api.get("/v1/concerts").header("traceparent", "00-\"}, \"forged\": \"-00f067aa0ba902b7-01");
    let forged = forged.send().await.header("x-request-id").unwrap().to_owned();
    for (id, expected) in [(&traced, trace), (&forged, &forged)] {
        eventually("the log line exists", || async {
            let log = process.log();
            let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let line = lines.into_iter().find(|line| line["request"]["id"] == **id)?;
            assert_eq!(line["request"]["trace_id"], expected, "{line}");
            Some(())
        })
        .await;
    }
    assert!(!process.log().contains("forged"));
}
