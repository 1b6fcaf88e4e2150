//! The example `docs/Caddyfile`, with a real Caddy in front of a stub site.

use std::process::{Child, Command, Stdio};

use axum::Router;
use axum::http::HeaderMap;
use axum::routing::any;
use reqwest::Method;
use reqwest::redirect::Policy;
use serde_json::json;
use tokio::net::TcpListener;
use usher::dev::TempDir;

use crate::support::{CONCERT, TestStores, TestWorld, eventually, new_user, skipped};

/// A site that responds with the user name it received.
async fn site() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let page = async |headers: HeaderMap| {
        let user = headers.get("usher-user").map(|user| user.to_str().unwrap().to_owned());
        format!("hello {}", user.unwrap_or_default())
    };
    let router = Router::new().fallback(any(page));
    tokio::spawn(async { axum::serve(listener, router).await });
    port
}

/// Caddy, stopped when this is dropped.
struct CaddyProcess(Child);

impl Drop for CaddyProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn caddy_passes_active_users_and_redirects_browsers() {
    let found = Command::new("caddy").arg("version").stdout(Stdio::null()).status();
    let Ok(_) = found else {
        return skipped("caddy is not installed");
    };
    let stores = TestStores::new().await;
    let mut args = stores.args();
    args.http.trusted_proxies = Some("1".into());
    let world = TestWorld::with_args(stores, &[args]).await;
    world.put_queue(CONCERT, json!({"max_active": 1})).await;
    let admitted = world.api.active_user(CONCERT).await;
    let waiting = world.api.join_new_user(CONCERT).await;
    let usher = world.instances[0].public.trim_start_matches("http://").to_owned();

    let dir = TempDir::new("caddy").unwrap();
    let (port, site) = (usher::dev::free_port().unwrap(), site().await);
    let example = include_str!("../../../docs/Caddyfile")
        .replace("127.0.0.1:8080", &usher)
        .replace("127.0.0.1:3000", &format!("127.0.0.1:{site}"))
        .replace("127.0.0.1:8000", &format!("127.0.0.1:{port}"))
        .replace("queues/demo", &format!("queues/{CONCERT}"));
    let config = dir.path().join("Caddyfile");
    std::fs::write(&config, format!("{{\n\tadmin off\n}}\n{example}")).unwrap();
    let caddy = Command::new("caddy")
        .args(["run", "--adapter", "caddyfile", "--config"])
        .arg(&config)
        .env("XDG_DATA_HOME", dir.path())
        .env("XDG_CONFIG_HOME", dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let _caddy = CaddyProcess(caddy.unwrap());

    let client = reqwest::Client::builder().no_proxy().redirect(Policy::none()).build().unwrap();
    let url = format!("http://127.0.0.1:{port}/seats?a=b");
    let ask = async |method: Method, cookie: &str, headers: &[(&str, &str)]| {
        let mut request = client.request(method, &url).header("cookie", cookie);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.header("usher-user", new_user()).send().await
    };
    let cookie = format!("usher-{CONCERT}={}", admitted.token);
    for method in [Method::GET, Method::POST, Method::DELETE] {
        let passed =
            eventually("caddy answers", async || ask(method.clone(), &cookie, &[]).await.ok())
                .await;
        assert_eq!(passed.status(), 200, "{method}");
        assert_eq!(passed.text().await.unwrap(), format!("hello {}", admitted.user));
    }
    let navigation = [("sec-fetch-mode", "navigate")];
    for cookie in [&format!("usher-{CONCERT}={}", waiting.token), "usher-show=forged", ""] {
        let sent = ask(Method::GET, cookie, &navigation).await.unwrap();
        assert_eq!(sent.status(), 302);
        let expected = format!("http://127.0.0.1:{port}/waiting/{CONCERT}?return=%2Fseats%3Fa%3Db");
        assert_eq!(sent.headers()["location"], expected);
        for method in [Method::GET, Method::POST] {
            let refused = ask(method, cookie, &[]).await.unwrap();
            assert_eq!(refused.status(), 401);
            assert_eq!(refused.headers()["content-type"], "application/problem+json");
        }
    }
    let preflight = [("origin", "https://shop.example"), ("access-control-request-method", "PUT")];
    let passed = ask(Method::OPTIONS, "", &preflight).await.unwrap();
    assert_eq!(passed.status(), 200);
    assert_eq!(passed.text().await.unwrap(), "hello ", "the client's own user does not pass");
    let forged = [preflight[0], preflight[1], ("x-forwarded-method", "OPTIONS")];
    assert_eq!(ask(Method::GET, "", &forged).await.unwrap().status(), 401);
}
