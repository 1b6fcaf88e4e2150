//! The fail points: they act where they say, and an unknown one is refused. The tests of each
//! domain use them.

use serde_json::json;
use tokio::process::Command;

use crate::support::{ApiClient, TempDir, TestStores, UsherProcess, new_key, new_user};

/// The status of a charge of 10, if any instance answered.
async fn charge(api: &ApiClient, user: &str, key: &str) -> Option<u16> {
    let call = api.post("/v1/wallet/charges").user(user).key(key).json(&json!({"amount": 10}));
    call.try_send().await.ok().map(|answer| answer.status)
}

async fn balance(api: &ApiClient, user: &str) -> i64 {
    api.get("/v1/wallet").user(user).send().await.expect(200)["balance"].as_i64().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failpoint_kills_before_or_after_a_script() {
    let stores = TestStores::new().await;
    let healthy = UsherProcess::start(&stores).await;
    for (edge, done) in [("before", 0), ("after", 10)] {
        let point = format!("wallet/charge.{edge}=1*off->return(kill)");
        let process = UsherProcess::start_failing(&stores, &point).await;
        let (user, other) = (new_user(), new_user());
        assert_eq!(
            charge(&process.api(), &other, &new_key()).await,
            Some(201),
            "the first call may pass"
        );
        assert_eq!(charge(&process.api(), &user, &new_key()).await, None, "{edge}");
        process.wait_until_killed().await;
        assert_eq!(balance(&healthy.api(), &user).await, done, "{edge}");
    }
    stores.audit().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failpoint_holds_a_step_until_released() {
    let (stores, dir) = (TestStores::new().await, TempDir::new("it-failpoint").unwrap());
    let go = dir.path().join("go");
    let process = UsherProcess::start_failing(
        &stores,
        &format!("wallet/charge.before=1*return(until {})", go.display()),
    )
    .await;
    let (api, user) = (process.api(), new_user());
    let held = tokio::spawn({
        let (api, user) = (api.clone(), user.clone());
        async move { charge(&api, &user, &new_key()).await }
    });
    process.wait_for_failpoint("wallet/charge.before").await;
    assert_eq!(balance(&api, &user).await, 0, "the process answers meanwhile");
    std::fs::write(&go, "").unwrap();
    assert_eq!(held.await.unwrap(), Some(201));
    assert_eq!(balance(&api, &user).await, 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failpoint_freezes_the_process() {
    let stores = TestStores::new().await;
    let process = UsherProcess::start_failing(&stores, "wallet/charge.after=1*return(stop)").await;
    let (api, user) = (process.api(), new_user());
    let key = new_key();
    let mut held = Box::pin(charge(&api, &user, &key));
    tokio::select! {
        answer = &mut held => panic!("it was not held: {answer:?}\n{}", process.log()),
        () = process.wait_until_frozen() => {}
    }
    process.thaw();
    assert_eq!(held.await, Some(201));
}

#[tokio::test]
async fn unknown_failpoint_or_action_is_refused() {
    for (points, said) in [
        ("wallet/charge=return(kill)", "no fail point \"wallet/charge\""),
        ("writer.after_trim=die", "writer.after_trim=die"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_usher"))
            .args(["openapi"])
            .env("FAILPOINTS", points)
            .output()
            .await
            .unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && text.contains(said), "{text}");
    }
}
