//! `usher export` and `usher apply`.

use reqwest::Method;
use serde_json::json;

use super::operator_commands::usher;
use crate::support::{CONCERT, TempDir, TestWorld};

const SALE: &str = r#"
queues:
  show: {max_active: 50, promote_per_interval: 5}
concerts:
  show:
    title: Night
    queue_id: show
    schedules:
      - id: night
        starts_at: 2100-01-01T19:00:00+09:00
        sections: [{name: A, from: 1, to: 10, price: 1000}]
coupons:
  off: {title: Off, discount_kind: amount, discount_amount: 500, total_quantity: 10,
    issue_starts_at: 2026-01-01T00:00:00Z, issue_ends_at: 2100-01-01T00:00:00Z}
rewards:
  hello:
    title: Hello
    starts_at: 2026-01-01T00:00:00Z
    ends_at: 2100-01-01T00:00:00Z
    reward: {kind: points, amount: 100}
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn definitions_are_applied_once_and_exported() {
    let world = TestWorld::start(2).await;
    let (api, admin) = (&world.api, world.api.admin().to_owned());
    let dir = TempDir::new("it-definitions").unwrap();
    let path = dir.path().join("sale.yaml").to_str().unwrap().to_owned();
    let apply = async |text: &str, more: &[&str]| {
        std::fs::write(&path, text).unwrap();
        usher(&admin, &[&["apply", "-f", &path], more].concat()).await
    };
    let (done, said) = apply(SALE, &["--dry-run"]).await;
    assert!(done && said.ends_with("4 to change; nothing was applied\n"), "{said}");
    let queue = async || api.admin_call(Method::GET, "/admin/queues/show").send().await;
    assert_eq!(queue().await.status, 404);
    let (done, said) = apply(SALE, &[]).await;
    assert!(
        done && said.contains("queues/show: create\n") && said.ends_with("4 applied\n"),
        "{said}"
    );
    assert_eq!(queue().await.expect(200)["definition"]["max_active"], 50);
    assert_eq!(apply(SALE, &[]).await, (true, "nothing to change\n".to_owned()));

    let (done, exported) = usher(&admin, &["export"]).await;
    assert!(done, "{exported}");
    assert_eq!(apply(&exported, &[]).await, (true, "nothing to change\n".to_owned()));

    let (done, said) = apply("queues: {show: {max_active: 60}}", &[]).await;
    assert!(done, "{said}");
    assert_eq!(
        said,
        "queues/show: change\n  max_active: 50 -> 60\n  promote_per_interval: 5 -> 100\n1 applied\n"
    );
    api.join_new_user(CONCERT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mistakes_in_a_file_change_nothing_and_are_named() {
    let world = TestWorld::start(1).await;
    let admin = world.api.admin().to_owned();
    let dir = TempDir::new("it-definitions").unwrap();
    let path = dir.path().join("sale.yaml").to_str().unwrap().to_owned();
    for (text, part) in [
        ("queues: {show: {max_activ: 60}}", "max_activ"),
        ("queue: {}", "queue"),
        ("queues: {show: {max_active: -1}}", "max_active"),
        ("queues: {'a/b': {}}", "a/b"),
        ("queues: [", "sale.yaml"),
    ] {
        std::fs::write(&path, text).unwrap();
        let (done, said) = usher(&admin, &["apply", "-f", &path]).await;
        assert!(!done && said.contains(part), "{text}: {said}");
    }
    let two_mistakes = "queues: {good: {}, show: {max_active: 0}}\nrewards: {r: {title: '', starts_at: \
         2026-01-01T00:00:00Z, ends_at: 2100-01-01T00:00:00Z, reward: {kind: points, amount: 1}}}";
    std::fs::write(&path, two_mistakes).unwrap();
    let (done, said) = usher(&admin, &["apply", "-f", &path]).await;
    assert!(!done && said.contains("queues/show: max_active must"), "{said}");
    assert!(said.contains("rewards/r: title must"), "{said}");
    let (done, said) = usher(&admin, &["apply", "-f", "/nowhere"]).await;
    assert!(!done && said.contains("/nowhere"), "{said}");
    let listed = world.api.admin_call(Method::GET, "/admin/queues").send().await.expect(200);
    assert_eq!(listed["items"], json!([]));
}
