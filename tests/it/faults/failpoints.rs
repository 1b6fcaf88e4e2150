//! The fail points themselves: they strike where they say, and a wrong one is told. What the service makes of it stands in the rooms' files.

use serde_json::json;
use tokio::process::Command;

use crate::support::{Api, Process, Stores, TempDir, new_key, new_user};

/// What became of a charge of 10, whoever answered: its status, if anybody answered.
async fn charge(api: &Api, user: &str, key: &str) -> Option<u16> {
    let call = api.post("/v1/wallet/charges").user(user).key(key).json(&json!({"amount": 10}));
    call.try_send().await.ok().map(|answer| answer.status)
}

async fn balance(api: &Api, user: &str) -> i64 {
    api.get("/v1/wallet").user(user).send().await.expect(200)["balance"].as_i64().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_dies_before_a_script_or_after_it() {
    let stores = Stores::new().await;
    let healthy = Process::start(&stores).await;
    for (edge, done) in [("before", 0), ("after", 10)] {
        let point = format!("wallet/charge.{edge}=1*off->return(kill)");
        let process = Process::start_failing(&stores, &point).await;
        let (user, other) = (new_user(), new_user());
        assert_eq!(charge(&process.api(), &other, &new_key()).await, Some(201), "one may pass");
        assert_eq!(charge(&process.api(), &user, &new_key()).await, None, "{edge}");
        process.died().await;
        assert_eq!(balance(&healthy.api(), &user).await, done, "{edge}");
    }
    stores.audit().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_is_held_until_the_test_lets_it_go() {
    let (stores, dir) = (Stores::new().await, TempDir::new("it-failpoint").unwrap());
    let go = dir.path().join("go");
    let process = Process::start_failing(
        &stores,
        &format!("wallet/charge.before=1*return(until {})", go.display()),
    )
    .await;
    let (api, user) = (process.api(), new_user());
    let held = tokio::spawn({
        let (api, user) = (api.clone(), user.clone());
        async move { charge(&api, &user, &new_key()).await }
    });
    process.reached("wallet/charge.before").await;
    assert_eq!(balance(&api, &user).await, 0, "the process answers meanwhile");
    std::fs::write(&go, "").unwrap();
    assert_eq!(held.await.unwrap(), Some(201));
    assert_eq!(balance(&api, &user).await, 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_is_frozen_until_it_is_thawed() {
    let stores = Stores::new().await;
    let process = Process::start_failing(&stores, "wallet/charge.after=1*return(stop)").await;
    let (api, user) = (process.api(), new_user());
    let key = new_key();
    let mut held = Box::pin(charge(&api, &user, &key));
    tokio::select! {
        answer = &mut held => panic!("nothing held it: {answer:?}\n{}", process.log()),
        () = process.frozen() => {}
    }
    process.thaw();
    assert_eq!(held.await, Some(201));
}

#[tokio::test]
async fn an_unknown_point_or_action_is_refused() {
    for (points, said) in [
        ("wallet/charge=return(kill)", "no point «wallet/charge»"),
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
