//! The commands for incidents, over the admin API.

use serde_json::json;
use tokio::process::Command;

use crate::support::servers::ADMIN_KEY;
use crate::support::{CONCERT, SCHEDULE, TestWorld, new_key};

/// Runs `usher …`. Returns whether it succeeded, and what it said.
pub(crate) async fn usher(admin: &str, words: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_usher"))
        .args(words)
        .env("USHER_ADMIN_URL", admin)
        .env("USHER_ADMIN_KEY", ADMIN_KEY)
        .stdin(std::process::Stdio::null())
        .output()
        .await
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn incidents_are_handled_from_the_command_line() {
    let world = TestWorld::start(1).await;
    world.put_show(10, 1_000).await;
    let (api, admin) = (&world.api, world.api.admin().to_owned());
    let run = async |line: &str| usher(&admin, &line.split(' ').collect::<Vec<_>>()).await;
    let mode = async || api.get("/v1/queues/show").send().await.expect(200)["mode"].clone();

    for (word, expected) in [("pause", "paused"), ("close", "closed"), ("open", "open")] {
        let (done, said) = run(&format!("queue {word} show")).await;
        assert!(done && said.contains(&format!("mode is \"{expected}\", it was")), "{said}");
        assert_eq!(mode().await, expected);
    }
    let (done, said) = run("queue set show max_active=77 message=Hello").await;
    assert!(done && said.contains("max_active is 77, it was 10000"), "{said}");
    let (done, said) = run("queue set show max_active=none").await;
    assert!(!done && said.contains("422 invalid_request: max_active"), "{said}");
    let (done, said) = run("queue pause nowhere").await;
    assert!(!done && said.contains("404 not_found"), "{said}");

    let user = api.active_user(CONCERT).await;
    api.charge(&user.user, 5_000).await;
    let held = api.hold_seats(&user.token, SCHEDULE, &[1]).await;
    api.pay(&user.token, &held, &new_key()).await.expect(201);
    let (done, said) = run(&format!("user show {}", user.user)).await;
    let shown: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert!(done && shown["balance"] == 4_000, "{said}");

    let buyer = api.active_user(CONCERT).await;
    api.charge(&buyer.user, 1_000).await;
    let bought = api.hold_seats(&buyer.token, SCHEDULE, &[2]).await;
    api.pay(&buyer.token, &bought, &new_key()).await.expect(201);
    let cancel = format!("reservation cancel {bought} --reason broken");
    let (done, said) = run(&cancel).await;
    assert!(!done && said.contains("--yes"), "{said}");
    assert_eq!(api.balance(&buyer.user).await, 0);
    let (done, said) = run(&format!("{cancel} --yes")).await;
    assert!(done && said == format!("reservation {bought}: cancelled\n"), "{said}");
    assert_eq!(api.balance(&buyer.user).await, 1_000);
    let (done, said) = run(&format!("{cancel} --yes")).await;
    assert!(!done && said.contains("409 not_cancellable"), "{said}");

    // What can't be undone is not done without a confirmation.
    let other = api.active_user(CONCERT).await;
    let remove = format!("user remove show {}", other.user);
    let (done, said) = run(&remove).await;
    assert!(!done && said.contains("--yes"), "{said}");
    assert_eq!(api.poll(CONCERT, &other.token).await.expect(200)["status"], "active");
    let (done, said) = run(&format!("{remove} --yes")).await;
    assert!(done && said.contains("is removed"), "{said}");
    api.wait_until_expired(CONCERT, &other.token).await;

    let (done, said) = run("job list").await;
    assert!(done && said == "no jobs\n", "{said}");
    let (done, said) = run("schedule cancel night --reason ill").await;
    assert!(!done && said.contains("--yes"), "{said}");
    let (done, said) = run("schedule cancel night --reason ill --yes").await;
    assert!(done && said.contains("night is called off"), "{said}");
    crate::support::eventually("the job is listed as done", || async {
        let (done, said) = run("job list").await;
        (done && said.contains("done  1 of 1, 0 failed")).then_some(())
    })
    .await;
    assert_eq!(api.balance(&user.user).await, 5_000);
    let actions = api.admin_call(reqwest::Method::GET, "/admin/actions").send().await.expect(200);
    assert_eq!(actions["items"][0]["object"], json!(SCHEDULE));

    let (done, said) = usher("http://127.0.0.1:9", &["job", "list"]).await;
    assert!(
        !done && said.contains("does not answer") && said.contains("USHER_ADMIN_URL"),
        "{said}"
    );
    let refused = run("job list --admin-key 0ff1ce-c2b7a9d84e5f6a1b3c8d7e9f0b").await;
    assert!(!refused.0 && refused.1.contains("401 unauthenticated"), "{refused:?}");
}
