//! The log of admin actions: every change is recorded, without its body.

use reqwest::Method;
use serde_json::json;
use sqlx::Row;

use crate::support::servers::ADMIN_KEY;
use crate::support::world::fast_queue_settings;
use crate::support::{CONCERT, TestStores, TestWorld, eventually, new_user};

/// Method, route, object and status of every entry, oldest first.
async fn lines(stores: &TestStores) -> Vec<(String, String, Option<String>, Option<u16>)> {
    let select = "SELECT method, route, object, status FROM admin_actions ORDER BY id";
    sqlx::query_as(select).fetch_all(&stores.mysql).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_admin_change_is_logged_without_its_body() {
    let world = TestWorld::start(1).await;
    let (api, stores) = (&world.api, &world.stores);
    let put =
        |path: &str| api.admin_call(Method::PUT, path).header("x-request-id", "of-the-operator");
    put("/admin/queues/show").json(&fast_queue_settings()).send().await.expect(200);
    put("/admin/queues/show")
        .json(&json!({"mode": "canary-of-a-body"}))
        .send()
        .await
        .problem(422, "invalid_request");
    put("/admin/queues/a%20b")
        .json(&fast_queue_settings())
        .send()
        .await
        .problem(422, "invalid_request");
    let user = new_user();
    let facts = put(&format!("/admin/users/{user}/facts?x=canary-of-a-query"))
        .json(&json!({"login_days": 7}));
    facts.send().await;
    api.admin_call(Method::POST, "/admin/audit").send().await.expect(200);
    // Reads are not recorded, and neither are calls without the key.
    api.admin_call(Method::GET, "/admin/queues").send().await.expect(200);
    let keyless =
        api.keyless_admin_call(Method::PUT, "/admin/queues/show").json(&fast_queue_settings());
    keyless.send().await.problem(401, "unauthenticated");

    let line = |method: &str, route: &str, object: Option<&str>, status| {
        (method.to_owned(), route.to_owned(), object.map(str::to_owned), Some(status))
    };
    let queue = "/admin/queues/{queue}";
    let seen = lines(stores).await;
    assert_eq!(seen.len(), 5, "{seen:?}");
    assert_eq!(
        seen[..3],
        [
            line("PUT", queue, Some(CONCERT), 200),
            line("PUT", queue, Some(CONCERT), 422),
            line("PUT", queue, Some("(not a name)"), 422),
        ]
    );
    assert_eq!(seen[3].2, Some(user));
    assert_eq!(seen[4], line("POST", "/admin/audit", None, 200));

    // The same entries over HTTP, page by page.
    let page = |query: String| api.admin_call(Method::GET, &format!("/admin/actions{query}"));
    let first = page("?limit=3".to_owned()).send().await.expect(200);
    let next = first["next"].as_str().unwrap();
    let second = page(format!("?limit=3&before={next}")).send().await.expect(200);
    assert_eq!(second["next"], json!(null));
    let reported = [&first, &second].map(|page| page["items"].as_array().unwrap().clone()).concat();
    let reported: Vec<_> = reported
        .iter()
        .rev()
        .map(|it| (&it["method"], &it["route"], &it["object"], &it["status"]))
        .collect();
    let kept: Vec<_> = seen
        .iter()
        .map(|(method, route, object, status)| json!([method, route, object, status]))
        .collect();
    assert_eq!(json!(reported), json!(kept));

    let rows = sqlx::query("SELECT key_id, peer, request_id FROM admin_actions ORDER BY id")
        .fetch_all(&stores.mysql)
        .await
        .unwrap();
    for (at, row) in rows.iter().enumerate() {
        assert_eq!(row.get::<String, _>("key_id").len(), 8);
        assert_eq!(row.get::<String, _>("peer"), "127.0.0.1");
        let id: String = row.get("request_id");
        assert!(if at < 4 { id == "of-the-operator" } else { id.len() == 32 }, "{id}");
    }
    let said = std::process::Command::new(env!("CARGO_BIN_EXE_usher"))
        .args(["admin-log", "--newest", "4", "--mysql-url", &stores.mysql_url])
        .output()
        .unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    assert_eq!(said.lines().count(), 4, "{said}");
    assert!(
        said.lines().next().unwrap().contains("422 PUT /admin/queues/{queue} show  from 127.0.0.1"),
        "{said}"
    );
    for canary in ["canary", ADMIN_KEY, &ADMIN_KEY[..8]] {
        assert!(!said.contains(canary), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn change_is_refused_when_its_log_entry_cannot_be_written() {
    let world = TestWorld::start(1).await;
    let (api, mysql) = (&world.api, &world.stores.mysql);
    sqlx::query("RENAME TABLE admin_actions TO admin_actions_away").execute(mysql).await.unwrap();
    let queue = fast_queue_settings();
    let put = || api.put("/admin/queues/show", &queue);
    put().await.problem(503, "store_unavailable");
    api.admin_call(Method::GET, "/admin/queues/show").send().await.problem(404, "not_found");
    assert_eq!(world.stores.count("SELECT COUNT(*) FROM queues").await, 0);
    sqlx::query("RENAME TABLE admin_actions_away TO admin_actions").execute(mysql).await.unwrap();
    eventually("the change is applied", async || (put().await.status == 200).then_some(())).await;
    assert_eq!(lines(&world.stores).await.len(), 1);
}
