//! Metrics, rules and dashboards with a real Prometheus: the exposition is valid, each alert fires
//! when it should and not earlier, and every panel and rule has data.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use usher::dev::TempDir;

use crate::operations::dashboards::{expressions, panels};
use crate::support::servers::partition_of_user;
use crate::support::{
    CONCERT, SCHEDULE, TestStores, TestWorld, UsherProcess, eventually, new_key, new_user, skipped,
    within,
};

/// Limit for all panels and rules to have data.
const DATA_TIMEOUT: Duration = Duration::from_secs(240);
/// The value of `$__rate_interval`: Grafana uses at least four scrape intervals.
const RATE_INTERVAL: &str = "20s";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("grafana/prometheus")
}

fn is_installed(program: &str) -> bool {
    let found =
        Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if found.is_err() {
        skipped(&format!("{program} is not installed"));
    }
    found.is_ok()
}

fn promtool(arguments: &[&str]) -> Output {
    Command::new("promtool").args(arguments).current_dir(folder()).output().unwrap()
}

fn must_pass(arguments: &[&str]) -> String {
    let output = promtool(arguments);
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
    said
}

/// The values after a key on the lines of a file, without quotes.
fn values_after(file: &str, word: &str) -> Vec<String> {
    let text = std::fs::read_to_string(folder().join(file)).unwrap();
    let lines = text.lines().filter_map(|line| line.split_once(word).map(|(_, rest)| rest));
    lines.map(|rest| rest.split([',', '}']).next().unwrap().trim().to_owned()).collect()
}

#[test]
fn rules_are_valid_and_every_alert_fires_in_a_test() {
    let alerts: BTreeSet<String> = values_after("alerts.yml", "alert: ").into_iter().collect();
    assert!(alerts.len() > 10, "{alerts:?}");
    let cases: BTreeSet<String> = values_after("alerts.test.yml", "name: Usher")
        .into_iter()
        .map(|name| format!("Usher{name}"))
        .collect();
    assert_eq!(alerts, cases, "grafana/prometheus/alerts.test.yml has a case for each alert");
    // Each case has one time at which the alert is silent and one at which it fires.
    let text = std::fs::read_to_string(folder().join("alerts.test.yml")).unwrap();
    for alert in &alerts {
        let silent = format!("alertname: {alert}, exp_alerts: [] }}");
        let fires = format!("alertname: {alert}\n        exp_alerts:\n");
        assert!(text.contains(&silent) && text.contains(&fires), "{alert}");
    }
    let many = alerts.len();
    assert_eq!(values_after("alerts.yml", "for: ").len(), many, "each alert has a `for`");
    for severity in values_after("alerts.yml", "severity: ") {
        assert!(["page", "warn"].contains(&severity.as_str()), "{severity}");
    }
    assert_eq!(values_after("alerts.yml", "severity: ").len(), many);
    let books: BTreeSet<String> = values_after("alerts.yml", "runbook_url: ").into_iter().collect();
    let places =
        alerts.iter().map(|alert| format!("docs/operate.md#{}", alert.to_lowercase())).collect();
    assert_eq!(books, places, "each alert links to its runbook");
    if is_installed("promtool") {
        must_pass(&["check", "rules", "rules.yml", "alerts.yml"]);
        must_pass(&["check", "config", "prometheus.yml"]);
        must_pass(&["test", "rules", "alerts.test.yml"]);
    }
}

/// Prometheus with its own data directory, stopped when this is dropped.
struct PrometheusProcess {
    child: Child,
    url: String,
    dir: TempDir,
}

impl PrometheusProcess {
    /// Scrapes one address, with the rules of the repository.
    fn start(target: &str) -> Self {
        let dir = TempDir::new("prometheus").unwrap();
        for file in ["rules.yml", "alerts.yml"] {
            std::fs::copy(folder().join(file), dir.path().join(file)).unwrap();
        }
        let config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\n\
             rule_files: [rules.yml, alerts.yml]\n\
             scrape_configs: [{{job_name: usher, static_configs: [{{targets: ['{target}']}}]}}]\n"
        );
        std::fs::write(dir.path().join("prometheus.yml"), config).unwrap();
        let address = format!("127.0.0.1:{}", usher::dev::free_port().unwrap());
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", dir.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { child, url: format!("http://{address}"), dir }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// The response of an API path, or `None` while it is not available.
    async fn ask(&self, path: &str, query: &[(&str, &str)]) -> Option<Value> {
        let request = reqwest::Client::new().get(format!("{}{path}", self.url)).query(query);
        let text = request.send().await.ok()?.text().await.ok()?;
        let answer: Value = serde_json::from_str(&text).ok()?;
        assert!(answer["status"] != "error", "{query:?}: {answer}\n{}", self.log());
        Some(answer["data"].clone())
    }

    /// Whether an expression returns at least one sample that is a number.
    async fn has_data(&self, expression: &str) -> bool {
        let Some(data) = self.ask("/api/v1/query", &[("query", expression)]).await else {
            return false;
        };
        let result = data["result"].as_array().cloned().unwrap_or_default();
        result.iter().any(|sample| sample["value"][1].as_str().is_some_and(|value| value != "NaN"))
    }
}

impl Drop for PrometheusProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The queries of the panels, as Grafana sends them with everything selected.
fn panel_queries() -> Vec<String> {
    let all = panels().into_iter().flat_map(|(_, panel)| expressions(&panel));
    let all = all.map(|it| it.replace("$__rate_interval", RATE_INTERVAL));
    all.map(|it| {
        ["$job", "$instance", "$queue"].iter().fold(it, |text, name| text.replace(name, ".+"))
    })
    .collect()
}

/// A comparison returns no data while all is well, so query its left side.
fn without_comparison(expression: &str) -> String {
    let sides = [" > ", " == ", " >= "].iter().find_map(|sign| expression.rsplit_once(sign));
    sides.map_or(expression, |(left, _)| left).trim_start_matches("absent(").to_owned()
}

/// A separate process with a sale, because metrics belong to the process.
async fn start_with_sale() -> (TestWorld, UsherProcess) {
    let stores = TestStores::new().await;
    let limits = [
        ("USHER_LIMIT_USER_PER_SECOND", "1".to_owned()),
        ("USHER_LIMIT_USER_BURST", "100".to_owned()),
        ("USHER_WEBHOOK_ALLOW_PRIVATE", "true".to_owned()),
    ];
    let process = UsherProcess::start_with(&stores, &limits).await;
    let world = TestWorld { stores, instances: Vec::new(), api: process.api() };
    crate::recovery::restore::open_sale(&world, 100).await;
    let mut bounded = crate::coupons::payments::coupon(300, 0);
    bounded["total_quantity"] = json!(1_000);
    world.api.put("/admin/coupons/bounded", &bounded).await.expect(200);
    world
        .put_queue("full", json!({"promote_per_interval": 1, "max_active": 1, "max_waiting": 1}))
        .await;
    // Nothing listens there, so every attempt fails.
    let books = json!({"url": "http://127.0.0.1:1/", "types": ["wallet.charged"]});
    world.api.put("/admin/webhooks/books", &books).await.expect(200);
    (world, process)
}

/// Some users with all kinds of calls. Called repeatedly, so that rates have data.
async fn load(world: &TestWorld, seat: u32) {
    let api = &world.api;
    let guest = api.active_user(CONCERT).await;
    api.charge(&guest.user, 10_000).await;
    if let Ok(held) = api.hold(&guest.token, SCHEDULE, &[seat]).await.as_held() {
        api.pay(&guest.token, &held, &new_key()).await;
    }
    for path in
        ["/v1/coupons/spring/issues", "/v1/coupons/bounded/issues", "/v1/rewards/hello/claims"]
    {
        api.post(path).user(&guest.user).send().await;
    }
    // A full queue returns 503, and a user over the limit gets 429.
    api.join("full", &new_user()).await;
    for _ in 0..60 {
        api.get("/v1/wallet").user(RATE_LIMITED_USER).send().await;
    }
    api.admin_call(Method::GET, "/admin/queues").send().await;
}

/// A user who exceeds the rate limit.
const RATE_LIMITED_USER: &str = "00000000-0000-4000-8000-0000000000aa";

trait HoldResult {
    fn as_held(&self) -> Result<String, u16>;
}

impl HoldResult for crate::support::ApiResponse {
    fn as_held(&self) -> Result<String, u16> {
        self.body["id"]
            .as_str()
            .filter(|_| self.status == 201)
            .map(str::to_owned)
            .ok_or(self.status)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exposed_metrics_are_valid() {
    if !is_installed("promtool") {
        return;
    }
    let (world, _process) = start_with_sale().await;
    load(&world, 1).await;
    world.api.admin_call(Method::POST, "/admin/audit").send().await.expect(200);
    let text = world.api.keyless_admin_call(Method::GET, "/metrics").send().await.expect_text(200);
    assert!(text.contains("usher_http_requests_total{"), "{text}");
    let mut check = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    check.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = check.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_panel_and_rule_has_data() {
    if !is_installed("prometheus") {
        return;
    }
    let (world, process) = start_with_sale().await;
    let prometheus = PrometheusProcess::start(process.admin.trim_start_matches("http://"));
    eventually("Prometheus has scraped", || async {
        let data = prometheus.ask("/api/v1/query", &[("query", "up == 1")]).await?;
        data["result"][0].is_object().then_some(())
    })
    .await;
    world.api.admin_call(Method::POST, "/admin/audit").send().await.expect(200);
    let mut open = panel_queries();
    open.extend(rule_expressions("rules.yml"));
    open.extend(rule_expressions("alerts.yml").iter().map(|it| without_comparison(it)));
    assert!(open.len() > 70, "{}", open.len());
    let mut seat = 0;
    let deadline = std::time::Instant::now() + DATA_TIMEOUT;
    while !open.is_empty() {
        seat = seat % 100 + 1;
        load(&world, seat).await;
        if open.iter().any(|it| it.contains("usher_recovery_seconds")) {
            lose_and_restore(&world).await;
        }
        let mut still = Vec::new();
        for expression in open {
            if !prometheus.has_data(&expression).await {
                still.push(expression);
            }
        }
        open = still;
        let mut list = String::new();
        open.iter().for_each(|it| writeln!(list, "{it}").unwrap());
        assert!(
            std::time::Instant::now() < deadline,
            "without data after {DATA_TIMEOUT:?}:\n{list}"
        );
    }
    // Prometheus evaluated the rules without an error.
    within(DATA_TIMEOUT, "every rule is evaluated", || async {
        let groups = prometheus.ask("/api/v1/rules", &[]).await?;
        let rules: Vec<_> = groups["groups"]
            .as_array()?
            .iter()
            .flat_map(|it| it["rules"].as_array().unwrap())
            .collect();
        let good = rules.iter().filter(|rule| rule["health"] == "ok").count();
        (rules.len() > 15 && good == rules.len()).then_some(())
    })
    .await;
}

/// Makes one partition recover. A histogram has no buckets before its first sample, so the first
/// recovery does not count for a rate.
async fn lose_and_restore(world: &TestWorld) {
    let recoveries = async || {
        let text = world.api.keyless_admin_call(Method::GET, "/metrics").send().await.text;
        text.lines()
            .find_map(|line| line.strip_prefix("usher_recoveries_total ")?.parse::<u64>().ok())
            .unwrap()
    };
    let before = recoveries().await;
    world.stores.lose_partition(partition_of_user(RATE_LIMITED_USER)).await;
    eventually("the lost partition is restored", || async {
        // A request triggers it. Otherwise the verifier would, after a while.
        world.api.get("/v1/wallet").user(RATE_LIMITED_USER).send().await;
        let again = recoveries().await > before;
        (again && world.api.get("/readyz?strict=true").send().await.status == 200).then_some(())
    })
    .await;
}

/// The expressions of a rule file, including folded ones.
fn rule_expressions(file: &str) -> Vec<String> {
    let text = std::fs::read_to_string(folder().join(file)).unwrap();
    let mut lines = text.lines().peekable();
    let mut all = Vec::new();
    while let Some(line) = lines.next() {
        let Some(rest) = line.trim_start().strip_prefix("expr: ") else { continue };
        if rest != ">-" {
            all.push(rest.to_owned());
            continue;
        }
        let depth = |line: &str| line.len() - line.trim_start().len();
        let mut folded = String::new();
        while lines.peek().is_some_and(|next| depth(next) > depth(line)) {
            write!(folded, "{} ", lines.next().unwrap().trim()).unwrap();
        }
        all.push(folded.trim().to_owned());
    }
    assert!(all.len() > 5, "{file}");
    all
}
