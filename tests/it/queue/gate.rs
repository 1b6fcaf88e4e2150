//! The gate for Caddy, Traefik and Envoy: which requests pass, which go to the waiting page, and
//! which proxies are believed.

use reqwest::header::HeaderMap;
use reqwest::redirect::Policy;
use reqwest::{Client, Method};
use serde_json::json;

use crate::support::{CONCERT, TestStores, TestWorld, new_user};

const HTML: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

struct GateClient {
    client: Client,
    url: String,
}

impl GateClient {
    fn new(url: &str) -> Self {
        let client = Client::builder().no_proxy().redirect(Policy::none()).build().unwrap();
        Self { client, url: url.to_owned() }
    }

    /// Status and headers.
    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> (u16, HeaderMap) {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = self.client.request(method, format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.headers().clone())
    }
}

/// A world behind a number of trusted proxies, with CORS for another origin.
async fn world(trusted_proxies: u8) -> (TestWorld, GateClient) {
    let stores = TestStores::new().await;
    let mut args = stores.args();
    args.http.trusted_proxies = Some(trusted_proxies.to_string());
    args.http.cors_origins = Some("https://shop.example".into());
    let world = TestWorld::with_args(stores, &[args]).await;
    world.put_queue(CONCERT, json!({"max_active": 1})).await;
    let client = GateClient::new(&world.instances[0].public);
    (world, client)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gate_passes_active_users_with_any_method_and_path() {
    let (world, client) = world(0).await;
    let active = world.api.active_user(CONCERT).await;
    let waiting = world.api.join_new_user(CONCERT).await;
    let cookie = format!("usher-{CONCERT}={}", active.token);
    let gate = format!("/v1/queues/{CONCERT}/gate");
    for rest in ["", "/", "/seats?a=b", "//double//slash/", "/a%2Fb/%ff", "/gate/gate"] {
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"] {
            let path = format!("{gate}{rest}");
            let headers = [("cookie", cookie.as_str()), ("usher-user", &new_user())];
            let (status, answer) = client.ask(method, &path, &headers).await;
            assert_eq!(status, 204, "{method} {path}");
            assert_eq!(answer["usher-user"], active.user, "{method} {path}");
        }
    }
    let token = [("queue-token", waiting.token.as_str()), ("accept", "application/json")];
    for method in ["GET", "POST", "PROPFIND"] {
        let (status, answer) = client.ask(method, &format!("{gate}/x"), &token).await;
        assert_eq!(
            (status, &answer["content-type"]),
            (401, &"application/problem+json".parse().unwrap())
        );
        assert!(!answer.contains_key("usher-user"));
    }
    let (status, answer) = client.ask("GET", "/v1/queues/nowhere/gate", &[("accept", HTML)]).await;
    assert_eq!(
        (status, answer["content-type"].to_str().unwrap()),
        (404, "application/problem+json")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gate_redirects_navigations_to_the_address_that_trusted_proxies_report() {
    for trusted in [0, 1] {
        let (world, client) = world(trusted).await;
        let host = world.instances[0].public.clone();
        let origin = if trusted == 0 { host.as_str() } else { "https://shop.example" };
        let proxy = [("x-forwarded-proto", "https"), ("x-forwarded-host", "shop.example")];
        let path = format!("/v1/queues/{CONCERT}/gate/seats?a=b");
        for mode in [("sec-fetch-mode", "navigate"), ("accept", HTML)] {
            let (status, answer) = client.ask("GET", &path, &[proxy[0], proxy[1], mode]).await;
            assert_eq!(status, 302);
            let expected = format!("{origin}/waiting/{CONCERT}?return=%2Fseats%3Fa%3Db");
            assert_eq!(answer["location"], expected);
            // The proxy reports the path in a header.
            let sent = [proxy[0], proxy[1], mode, ("x-forwarded-uri", "/other")];
            let (_, answer) = client.ask("GET", &path, &sent).await;
            assert_eq!(answer["location"], format!("{origin}/waiting/{CONCERT}?return=%2Fother"));
        }
        let other_site = format!("/v1/queues/{CONCERT}/gate//evil.example/");
        let (_, answer) = client.ask("GET", &other_site, &[("accept", HTML)]).await;
        assert!(answer["location"].to_str().unwrap().ends_with("?return=%2F"));
        let fetch = [("sec-fetch-mode", "cors"), ("accept", HTML)];
        assert_eq!(client.ask("GET", &path, &fetch).await.0, 401);
        let post = [("x-forwarded-method", "POST"), ("accept", HTML)];
        let expected = if trusted == 0 { 302 } else { 401 };
        assert_eq!(client.ask("GET", &path, &post).await.0, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gate_passes_preflight_requests_without_a_user() {
    let preflight = [("origin", "https://shop.example"), ("access-control-request-method", "PUT")];
    for trusted in [0, 1] {
        let (_world, client) = world(trusted).await;
        let path = format!("/v1/queues/{CONCERT}/gate/api");
        let with = |extra| [preflight[0], preflight[1], extra];
        let (status, answer) = client.ask("OPTIONS", &path, &with(("usher-user", "x"))).await;
        assert_eq!((status, &answer["usher-user"]), (204, &"".parse().unwrap()));
        assert!(!answer.contains_key("access-control-allow-origin"), "the site answers it");
        let reported = with(("x-forwarded-method", "OPTIONS"));
        let expected = if trusted == 0 { 401 } else { 204 };
        assert_eq!(client.ask("GET", &path, &reported).await.0, expected);
        // Not a preflight request.
        assert_eq!(client.ask("OPTIONS", &path, &[preflight[0]]).await.0, 401);
    }
}
