//! `usher top` against a server that serves: what it shows, and what it says when there is nothing to show.

use std::process::{Output, Stdio};

use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::support::servers::ADMIN_KEY;
use crate::support::world::{fast_queue, show};
use crate::support::{NIGHT, PATIENCE, Process, SHOW, Stores, eventually, new_key};

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
async fn queues_sales_and_writer_are_shown() {
    let stores = Stores::new().await;
    let process = Process::start(&stores).await;
    let api = process.api();
    api.put(&format!("/admin/queues/{SHOW}"), &fast_queue()).await.expect(200);
    api.put(&format!("/admin/concerts/{SHOW}"), &show(50, 1_000)).await.expect(200);
    api.put("/admin/queues/still", &json!({"mode": "paused", "max_active": 7_654}))
        .await
        .expect(200);
    for _ in 0..3 {
        api.guest("still").await;
    }
    let guest = api.active_guest(SHOW).await;
    api.charge(&guest.user, 5_000).await;
    let held = api.held(&guest.token, NIGHT, &[7]).await;
    api.pay(&guest.token, &held, &new_key()).await.expect(201);

    // The sweep tells the seats twice a second, the promoter the line.
    let row = |screen: &str, name: &str| {
        screen
            .lines()
            .find(|line| line.starts_with(&format!("{name} ")))
            .unwrap_or_default()
            .to_owned()
    };
    let without_key = eventually("the sale is shown", || async {
        let screen = screen(&["--admin-url", &process.admin]).await;
        let told = row(&screen, SHOW).ends_with(" 1/50") && row(&screen, "still").contains(" 3 ");
        told.then_some(screen)
    })
    .await;
    assert!(without_key.contains("payments  confirmed 1 ("), "{without_key}");
    assert!(without_key.contains("holds     held 1 ("), "{without_key}");
    assert!(without_key.contains("dead letters 0, stopped partitions 0"), "{without_key}");
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
        assert!(!screen.contains('\x1b'), "no terminal, no escapes: {screen}");
    }

    // From the environment, and without an end: one screen after the other.
    let mut command = top(&[]);
    command.env("USHER_ADMIN_URL", &process.admin).env("USHER_ADMIN_KEY", ADMIN_KEY);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut screens = 0;
    while screens < 3 {
        let line =
            tokio::time::timeout(PATIENCE, lines.next_line()).await.expect("a line").unwrap();
        screens += u32::from(line.expect("it goes on").starts_with("Usher "));
    }
    child.kill().await.unwrap();

    // What is wrong is said by the setting's name.
    let wrong = "another-key-that-is-not-the-one-0";
    let refused = refusal(&["--admin-url", &process.admin, "--admin-key", wrong]).await;
    assert!(
        refused.contains("USHER_ADMIN_KEY (--admin-key)") && !refused.contains(wrong),
        "{refused}"
    );
    let stranger = refusal(&["--admin-url", &process.public]).await;
    assert!(stranger.contains("not as the admin listener"), "{stranger}");
    let nobody = format!("http://127.0.0.1:{}", usher::dev::free_port().unwrap());
    let silent = refusal(&["--admin-url", &nobody]).await;
    assert!(silent.contains("does not answer") && silent.contains("USHER_ADMIN_URL"), "{silent}");
    let unsound = refusal(&["--admin-url", "127.0.0.1"]).await;
    assert!(unsound.contains("USHER_ADMIN_URL (--admin-url): must be http://"), "{unsound}");
}
