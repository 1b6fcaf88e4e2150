//! Headers for browsers: CORS for listed origins, and the policies of the pages.

use reqwest::Method;

use super::rate_limits::{text, world};
use crate::support::{ApiClient, TestInstance, TestStores, new_user};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_listed_origins_may_call() {
    const OURS: &str = "https://shop.example";
    let stores = TestStores::new().await;
    let mut args = stores.args();
    let closed = TestInstance::start_with(&args).await;
    args.http.cors_origins = text(OURS);
    let open = TestInstance::start_with(&args).await;
    let api = |instance: &TestInstance| {
        ApiClient::new(vec![[instance.public.clone(), instance.admin.clone()]])
    };
    let (closed, open) = (api(&closed), api(&open));
    let preflight = async |api: &ApiClient, origin: &str| {
        let call = api.call(Method::OPTIONS, "/v1/payments").header("origin", origin);
        let call = call.header("access-control-request-method", "POST");
        call.header("access-control-request-headers", "queue-token,idempotency-key,content-type")
            .send()
            .await
    };
    let allowed = preflight(&open, OURS).await;
    assert_eq!(allowed.header("access-control-allow-origin"), Some(OURS));
    let headers = allowed.header("access-control-allow-headers").unwrap_or_default().to_owned();
    assert!(headers.contains("queue-token") && headers.contains("idempotency-key"), "{headers}");
    assert_eq!(allowed.header("access-control-allow-credentials"), None);
    assert!(allowed.header("x-request-id").is_some());
    for other in
        ["https://evil.example", "http://shop.example", "https://shop.example.evil.example", "null"]
    {
        assert_eq!(
            preflight(&open, other).await.header("access-control-allow-origin"),
            None,
            "{other}"
        );
    }
    // Pages can read problems, too: they need Retry-After.
    let refusal = open.get("/v1/wallet").header("origin", OURS).send().await;
    refusal.problem(401, "unauthenticated");
    assert_eq!(refusal.header("access-control-allow-origin"), Some(OURS));
    assert!(refusal.header("access-control-expose-headers").unwrap().contains("retry-after"));
    for (api, origin) in [(&closed, OURS), (&open, "https://evil.example")] {
        let answer = api.get("/v1/concerts").header("origin", origin).send().await;
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
    assert_eq!(preflight(&closed, OURS).await.header("access-control-allow-origin"), None);
    let admin = open.admin_call(Method::GET, "/admin/queues").header("origin", OURS).send().await;
    assert_eq!(
        admin.header("access-control-allow-origin"),
        None,
        "operators' pages are the console's own"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_have_strict_policies() {
    let world = world(|_| {}).await;
    let api = &world.api;
    for (page, admin) in [("/", false), ("/waiting/show", false), ("/", true)] {
        let answer = match admin {
            false => api.get(page).send().await,
            true => api.keyless_admin_call(Method::GET, page).send().await,
        };
        let policy = answer.header("content-security-policy").unwrap();
        assert!(
            policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
            "{policy}"
        );
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"));
    }
    // Other files are not interpreted as pages either.
    let wallet = api.get("/v1/wallet").user(&new_user()).send().await;
    assert_eq!(wallet.header("x-content-type-options"), Some("nosniff"));
    let place = api.post("/waiting/show/place").send().await;
    let cookie = place.header("set-cookie").unwrap();
    for word in ["usher-show=", "Secure", "HttpOnly", "SameSite=Lax", "Path=/"] {
        assert!(cookie.contains(word), "{cookie}");
    }
}
