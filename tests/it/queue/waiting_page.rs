//! The pages over HTTP, and the place that the waiting page keeps for its visitor.

use serde_json::{Value, json};

use crate::support::{
    ApiClient, ApiResponse, CONCERT, TestInstance, TestWorld, eventually, new_user,
};

const PLACE: &str = "/waiting/show/place";

/// The cookie of a response, as a browser sends it back.
fn cookie(answer: &ApiResponse) -> String {
    let cookie = answer.header("set-cookie").unwrap();
    for attribute in ["Path=/", "Secure", "HttpOnly", "SameSite=Lax", "Max-Age=86400"] {
        assert!(cookie.contains(attribute), "{cookie}");
    }
    cookie.split(';').next().unwrap().to_owned()
}

async fn place(api: &ApiClient, cookie: Option<&str>) -> ApiResponse {
    let call = api.post(PLACE);
    match cookie {
        Some(cookie) => call.header("cookie", cookie).send().await,
        None => call.send().await,
    }
}

fn user(ticket: &Value) -> String {
    ticket["user_id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn visitor_keeps_the_place_after_a_reload() {
    let world = TestWorld::start(2).await;
    world.put_show(10, 1_000).await;
    let api = &world.api;
    let first = place(api, None).await;
    let kept = cookie(&first);
    let visitor = user(&first.expect(200));
    for _ in 0..4 {
        let again = place(api, Some(&kept)).await;
        assert_eq!(user(&again.expect(200)), visitor, "on every instance");
    }
    assert_ne!(user(&place(api, None).await.expect(200)), visitor);
    assert_ne!(user(&place(api, Some("usher-show=forged")).await.expect(200)), visitor);

    // The same cookie passes the gateway check.
    eventually("the visitor is admitted", async || {
        let check =
            api.get(&format!("/v1/queues/{CONCERT}/check")).header("cookie", &kept).send().await;
        (check.status == 204 && check.header("usher-user") == Some(visitor.as_str())).then_some(())
    })
    .await;

    // A new place replaces one that the visitor left.
    let token = kept.split_once('=').unwrap().1;
    api.delete(&format!("/v1/queues/{CONCERT}/tokens/me"))
        .token(token)
        .send()
        .await
        .expect_text(204);
    assert_ne!(user(&place(api, Some(&kept)).await.expect(200)), visitor);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn known_user_has_one_place_on_page_and_api() {
    let world = TestWorld::start(1).await;
    world.put_show(10, 1_000).await;
    let api = &world.api;
    let known = new_user();
    let by_page = api.post(PLACE).user(&known).send().await;
    let kept = cookie(&by_page);
    assert_eq!(by_page.expect(200)["token"], api.join(CONCERT, &known).await.expect(200)["token"]);
    // Another user in the same browser does not get the first one's place.
    let next = new_user();
    let other = api.post(PLACE).user(&next).header("cookie", &kept).send().await;
    assert_eq!(user(&other.expect(200)), next);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn page_joins_only_for_valid_requests() {
    let world = TestWorld::start(1).await;
    world.put_show(10, 1_000).await;
    let api = &world.api;
    let foreign = api.post(PLACE).header("sec-fetch-site", "cross-site").send().await;
    foreign.problem(403, "forbidden");
    api.post("/waiting/nowhere/place").send().await.problem(404, "not_found");
    let mut args = world.stores.args();
    args.secrets.auth = Some("service-key".into());
    args.secrets.service_keys = Some("5ervice-c2b7a9d84e5f6a1b3c8d7e9f0a".into());
    let strict = TestInstance::start_with(&args).await;
    let strict_api = ApiClient::new(vec![[strict.public.clone(), strict.admin.clone()]]);
    place(&strict_api, None).await.problem(401, "unauthenticated");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn page_has_the_look_of_its_queue() {
    let world = TestWorld::start(2).await;
    let api = &world.api;
    let page = json!({
        "event_name": {"en": "Rock <Night> & \"more\"", "ko": "록의 밤"},
        "logo_url": "https://cdn.example:8443/logo.svg?v=1",
        "accent_color": "#0055aa",
        "header_color": "#101820",
        "support_url": "https://help.example/",
    });
    world.put_queue("show", json!({ "page": page })).await;
    let stored = api.admin_call(reqwest::Method::GET, "/admin/queues/show").send().await;
    assert_eq!(stored.expect(200)["definition"]["page"], page, "read back from MySQL");
    for (language, name) in [
        ("en", "Rock &lt;Night&gt; &amp; \\&quot;more\\&quot;"),
        ("ko", "록의 밤"),
        ("de", "Rock &lt;Night&gt;"),
    ] {
        eventually("every instance knows the look", async || {
            let page = api.get("/waiting/show").header("accept-language", language).send().await;
            let policy = page.header("content-security-policy").unwrap().to_owned();
            let text = page.expect_text(200);
            assert!(!text.contains("<Night>"), "{text}");
            let has_look = text.contains(name)
                && text.contains("#0055aa")
                && policy.contains("img-src 'self' https://cdn.example:8443; base-uri");
            has_look.then_some(())
        })
        .await;
    }
    world.put_queue("show", json!({})).await;
    eventually("the default page is back", async || {
        let page = api.get("/waiting/show").send().await;
        let is_default = page.header("content-security-policy")?.contains("img-src 'self';");
        is_default.then_some(())
    })
    .await;
}

/// Browsers get a page, programs a problem.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_address_is_a_page_for_browsers() {
    const BROWSER: &str = "text/html,application/xhtml+xml,*/*;q=0.8";
    let world = TestWorld::start(1).await;
    let api = &world.api;
    for path in ["/nowhere", "/waiting/nowhere", "/waiting/a%20b", "/waiting/%ff", "/waiting/x/y"] {
        let page = api.get(path).header("accept", BROWSER).send().await;
        assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"), "{path}");
        assert!(page.expect_text(404).contains("not_found.js"), "{path}");
    }
    api.get("/nowhere").send().await.problem(404, "not_found");
    api.get("/v1/nowhere").header("accept", BROWSER).send().await.problem(404, "not_found");
    api.post("/nowhere").header("accept", BROWSER).send().await.problem(404, "not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_listener_serves_only_its_own_pages() {
    let world = TestWorld::start(1).await;
    let api = &world.api;
    world.put_queue("show", json!({})).await;
    for path in ["/", "/waiting/show", "/assets/usher.css"] {
        let page = api.get(path).send().await;
        page.expect_text(200);
        assert!(
            page.header("content-security-policy").unwrap().contains("default-src 'none'"),
            "{path}"
        );
    }
    assert!(api.get("/").send().await.expect_text(200).contains("booking.js"));
    let console = api.keyless_admin_call(reqwest::Method::GET, "/").send().await.expect_text(200);
    assert!(console.contains("console.js"));
    api.keyless_admin_call(reqwest::Method::GET, "/waiting/show")
        .send()
        .await
        .problem(404, "not_found");
}
