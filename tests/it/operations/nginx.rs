//! The example `docs/nginx.conf`, with a real nginx in front of a stub site.

use std::path::Path;
use std::process::{Command, Stdio};

use axum::Router;
use axum::http::HeaderMap;
use axum::routing::get;
use serde_json::json;
use tokio::net::TcpListener;
use usher::dev::TempDir;

use crate::support::{CONCERT, TestWorld, eventually, new_user, skipped};

/// A site that responds with the user name it received.
async fn site() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let page =
        async |headers: HeaderMap| format!("hello {}", headers["usher-user"].to_str().unwrap());
    let router = Router::new().route("/seats", get(page));
    tokio::spawn(async { axum::serve(listener, router).await });
    port
}

/// nginx, stopped when this is dropped.
struct NginxProcess(std::process::Child);

impl Drop for NginxProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How many requests for the line nginx has passed to Usher.
fn passed_line_requests(dir: &Path) -> usize {
    let log = std::fs::read_to_string(dir.join("access.log")).unwrap();
    log.lines().filter(|line| line.contains("/line ") && !line.ends_with(" -")).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_passes_active_users_and_redirects_the_rest() {
    let found = Command::new("nginx").arg("-v").stderr(Stdio::null()).status();
    let Ok(_) = found else {
        return skipped("nginx is not installed");
    };
    let world = TestWorld::start(1).await;
    world.put_queue(CONCERT, json!({"max_active": 1})).await;
    let (admitted, waiting) =
        (world.api.join_new_user(CONCERT).await, world.api.join_new_user(CONCERT).await);
    let usher = world.instances[0].public.trim_start_matches("http://").to_owned();

    let dir = TempDir::new("nginx").unwrap();
    let (port, site) = (usher::dev::free_port().unwrap(), site().await);
    let example = include_str!("../../../docs/nginx.conf")
        .replace("127.0.0.1:8080", &usher)
        .replace("127.0.0.1:3000", &format!("127.0.0.1:{site}"))
        .replace("127.0.0.1:8000", &format!("127.0.0.1:{port}"))
        .replace("queues/demo", &format!("queues/{CONCERT}"))
        .replace("/var/cache/nginx", &dir.path().display().to_string());
    let path = dir.path().display();
    let temp = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {path}/{kind};"))
        .join(" ");
    let whole = format!(
        "daemon off; master_process off; pid {path}/pid; error_log {path}/error.log;\n\
         events {{}}\nhttp {{ log_format upstream '$uri $upstream_addr'; log_subrequest on; \
         access_log {path}/access.log upstream; {temp}\n{example}\n}}\n"
    );
    std::fs::write(dir.path().join("nginx.conf"), whole).unwrap();
    let config = dir.path().join("nginx.conf");
    let arguments = ["-p".as_ref(), dir.path().as_os_str(), "-c".as_ref(), config.as_os_str()];
    let _nginx =
        NginxProcess(Command::new("nginx").args(arguments).stderr(Stdio::null()).spawn().unwrap());

    let client =
        reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let ask = async |cookie: String| {
        let request = client.get(format!("http://127.0.0.1:{port}/seats?a=b"));
        request.header("cookie", cookie).header("usher-user", new_user()).send().await
    };
    let passed = eventually("nginx answers", async || {
        ask(format!("usher-{CONCERT}={}", admitted.token)).await.ok()
    })
    .await;
    assert_eq!(passed.status(), 200);
    assert_eq!(passed.text().await.unwrap(), format!("hello {}", admitted.user));
    for cookie in [
        format!("usher-{CONCERT}={}", waiting.token),
        "usher-show=forged".to_owned(),
        String::new(),
    ] {
        let sent = ask(cookie).await.unwrap();
        assert_eq!(sent.status(), 302);
        let location = sent.headers()["location"].to_str().unwrap();
        assert!(
            location.ends_with(&format!("/waiting/{CONCERT}?return=%2Fseats%3Fa%3Db")),
            "{location}"
        );
    }

    // Many users read the line, and few of their requests reach Usher.
    let line = async |encoding: &str| {
        let request = client.get(format!("http://127.0.0.1:{port}/v1/queues/{CONCERT}/line"));
        request.header("accept-encoding", encoding).send().await.unwrap()
    };
    let (began, mut sent) = (std::time::Instant::now(), 0);
    while sent < 500 {
        let answers = (0..50).map(|_| line("gzip, deflate, br"));
        for answer in futures::future::join_all(answers).await {
            assert_eq!(answer.status(), 200);
            let tag = answer.headers()["etag"].to_str().unwrap().to_owned();
            assert_eq!(answer.headers()["content-type"], "application/json");
            assert!(tag.trim_matches('"').parse::<u64>().is_ok(), "{tag}");
            sent += 1;
        }
    }
    let passed = passed_line_requests(dir.path());
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap();
    assert!((1..=seconds + 2).contains(&passed), "{passed} of {sent} requests in {seconds} s");
}
