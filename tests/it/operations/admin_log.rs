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
        said.lines()
            .next()
            .unwrap()
            .contains("422 PUT /admin/queues/{queue} show  by admin from 127.0.0.1"),
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entry_has_actor_and_both_states() {
    const ANN: &str = "0bserver-b7a9d84e5f6a1b3c8d7e9f0a11";
    const BOB: &str = "0perat0r-b7a9d84e5f6a1b3c8d7e9f0a11";
    let stores = TestStores::new().await;
    let mut args = stores.args();
    args.secrets.admin_keys = Some(format!("ann:viewer:{ANN},bob:operator:{BOB}"));
    let world = TestWorld::with_args(stores, &[args]).await;
    let api = &world.api;
    let call = |method: Method, path: &str, key: &str| {
        let call = api.keyless_admin_call(method, path);
        call.header("authorization", &format!("Bearer {key}"))
    };
    let queue = "/admin/queues/show";
    let made = api.put(queue, &json!({"max_active": 5})).await.expect(200)["definition"].clone();
    let patch = json!({"max_active": 7});
    let refused = call(Method::PATCH, queue, ANN).json(&patch).send().await;
    let refused = refused.problem(403, "forbidden");
    assert!(refused["detail"].as_str().unwrap().contains("operator"), "{refused}");
    assert_eq!(refused["required_role"], "operator");
    call(Method::GET, queue, ANN).send().await.expect(200);
    let changed = call(Method::PATCH, queue, BOB).json(&patch).send().await.expect(200);
    let concert = json!({"title": "x", "schedules": []});
    let put = call(Method::PUT, "/admin/concerts/show", BOB).json(&concert);
    assert_eq!(put.send().await.problem(403, "forbidden")["required_role"], "admin");
    let unknown = call(Method::PATCH, queue, &BOB[1..]).json(&patch).send().await;
    unknown.problem(401, "unauthenticated");
    call(Method::DELETE, queue, BOB).send().await.expect_text(204);
    let actions = call(Method::GET, "/admin/actions", ANN).send().await.expect(200);
    let seen: Vec<_> = actions["items"].as_array().unwrap().iter().rev().collect();
    let seen = json!(
        seen.iter().map(|it| (&it["actor"], &it["before"], &it["after"])).collect::<Vec<_>>()
    );
    let after = &changed["definition"];
    assert_eq!((&made["max_active"], &after["max_active"]), (&json!(5), &json!(7)));
    let expected = json!([["admin", null, made], ["bob", made, after], ["bob", after, null]]);
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn two_keys_of_one_name_are_refused() {
    let stores = TestStores::new().await;
    let mut args = stores.args();
    let secret = "0bserver-b7a9d84e5f6a1b3c8d7e9f0a11";
    args.secrets.admin_keys = Some(format!("ann:viewer:{secret},ann:admin:x{secret}"));
    let refused = usher::config::UsherConfig::new(&args).unwrap_err().to_string();
    assert!(refused.contains("the name ann is given twice"), "{refused}");
    assert!(!refused.contains(secret), "{refused}");
}
