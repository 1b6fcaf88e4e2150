//! `usher top` against a running server, and its errors.

use std::process::{Output, Stdio};

use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::support::servers::ADMIN_KEY;
use crate::support::world::{concert_definition, fast_queue_settings};
use crate::support::{
    CONCERT, EVENT_TIMEOUT, SCHEDULE, TestStores, UsherProcess, eventually, new_key,
};

fn top(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_usher"));
    command.arg("top").args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    for variable in ["USHER_ADMIN_URL", "USHER_ADMIN_KEY"] {
        command.env_remove(variable);
    }
    command
}

async fn once(arguments: &[&str]) -> Output {
    top(arguments).arg("--once").output().await.unwrap()
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

async fn screen(arguments: &[&str]) -> String {
    let output = once(arguments).await;
    assert!(output.status.success(), "{}", text(output.stderr));
    text(output.stdout)
}

async fn refusal(arguments: &[&str]) -> String {
    let output = once(arguments).await;
    assert!(!output.status.success() && output.stdout.is_empty());
    text(output.stderr)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn top_shows_queues_sales_and_writer() {
    let stores = TestStores::new().await;
    let process = UsherProcess::start(&stores).await;
    let api = process.api();
    api.put(&format!("/admin/queues/{CONCERT}"), &fast_queue_settings()).await.expect(200);
    api.put(&format!("/admin/concerts/{CONCERT}"), &concert_definition(50, 1_000))
        .await
        .expect(200);
    api.put("/admin/queues/still", &json!({"mode": "paused", "max_active": 7_654}))
        .await
        .expect(200);
    for _ in 0..3 {
        api.join_new_user("still").await;
    }
    let guest = api.active_user(CONCERT).await;
    api.charge(&guest.user, 5_000).await;
    let held = api.hold_seats(&guest.token, SCHEDULE, &[7]).await;
    api.pay(&guest.token, &held, &new_key()).await.expect(201);

    // The sweep updates the seats twice a second, the promoter the queue.
    let row = |screen: &str, name: &str| {
        screen
            .lines()
            .find(|line| line.starts_with(&format!("{name} ")))
            .unwrap_or_default()
            .to_owned()
    };
    let without_key = eventually("the sale is shown", || async {
        let screen = screen(&["--admin-url", &process.admin]).await;
        let reported =
            row(&screen, CONCERT).ends_with(" 1/50") && row(&screen, "still").contains(" 3 ");
        reported.then_some(screen)
    })
    .await;
    assert!(without_key.contains("payments  confirmed 1 ("), "{without_key}");
    assert!(without_key.contains("holds     held 1 ("), "{without_key}");
    assert!(without_key.contains("dead letters 0, halted partitions 0"), "{without_key}");
    assert!(
        without_key.contains("--admin-key") && !without_key.contains("paused"),
        "{without_key}"
    );

    let with_key = screen(&["--admin-url", &process.admin, "--admin-key", ADMIN_KEY]).await;
    let still = row(&with_key, "still");
    assert!(
        still.contains("paused") && still.contains(" 3 ") && still.contains("7,654"),
        "{with_key}"
    );
    assert!(!with_key.contains("--admin-key"), "{with_key}");
    for screen in [&without_key, &with_key] {
        assert!(screen.lines().all(|line| line.chars().count() <= 80), "{screen}");
        assert!(!screen.contains('\x1b'), "no escape sequences without a terminal: {screen}");
    }

    // From the environment, without a limit: one screen after the other.
    let mut command = top(&[]);
    command.env("USHER_ADMIN_URL", &process.admin).env("USHER_ADMIN_KEY", ADMIN_KEY);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut screens = 0;
    while screens < 3 {
        let line =
            tokio::time::timeout(EVENT_TIMEOUT, lines.next_line()).await.expect("a line").unwrap();
        screens += u32::from(line.expect("it prints another screen").starts_with("Usher "));
    }
    child.kill().await.unwrap();

    // Errors name the setting.
    let wrong = "another-key-that-is-not-the-one-0";
    let refused = refusal(&["--admin-url", &process.admin, "--admin-key", wrong]).await;
    assert!(
        refused.contains("USHER_ADMIN_KEY (--admin-key)") && !refused.contains(wrong),
        "{refused}"
    );
    let stranger = refusal(&["--admin-url", &process.public]).await;
    assert!(stranger.contains("is not the admin listener"), "{stranger}");
    let free_address = format!("http://127.0.0.1:{}", usher::dev::free_port().unwrap());
    let silent = refusal(&["--admin-url", &free_address]).await;
    assert!(silent.contains("does not answer") && silent.contains("USHER_ADMIN_URL"), "{silent}");
    let unsound = refusal(&["--admin-url", "127.0.0.1"]).await;
    assert!(unsound.contains("USHER_ADMIN_URL (--admin-url): must be http://"), "{unsound}");
}
