//! Metrics, rules and dashboards with the real Prometheus: what is exposed is sound, each alert fires when it should and not before, and nothing that is drawn or
//! reckoned is without data.

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
use crate::support::{
    NIGHT, Process, SHOW, Stores, World, eventually, new_key, new_user, skipped, within,
};

/// How long Prometheus may take until everything has data.
const SEEN: Duration = Duration::from_secs(240);
/// What stands for `$__rate_interval` here: Grafana makes it at least four scrapes long.
const RATE_INTERVAL: &str = "20s";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("grafana/prometheus")
}

fn there_is(program: &str) -> bool {
    let found =
        Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if found.is_err() {
        skipped(&format!("there is no {program} on this machine"));
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

/// The texts that follow a word on the lines of a file, without quotes.
fn following(file: &str, word: &str) -> Vec<String> {
    let text = std::fs::read_to_string(folder().join(file)).unwrap();
    let lines = text.lines().filter_map(|line| line.split_once(word).map(|(_, rest)| rest));
    lines.map(|rest| rest.split([',', '}']).next().unwrap().trim().to_owned()).collect()
}

#[test]
fn rules_are_sound_and_every_alert_fires_in_a_test() {
    let alerts: BTreeSet<String> = following("alerts.yml", "alert: ").into_iter().collect();
    assert!(alerts.len() > 10, "{alerts:?}");
    let cases: BTreeSet<String> = following("alerts.test.yml", "name: Usher")
        .into_iter()
        .map(|name| format!("Usher{name}"))
        .collect();
    assert_eq!(alerts, cases, "grafana/prometheus/alerts.test.yml has a case for each alert");
    // Each case tells one moment at which the alert is silent, and one at which it fires.
    let text = std::fs::read_to_string(folder().join("alerts.test.yml")).unwrap();
    for alert in &alerts {
        let silent = format!("alertname: {alert}, exp_alerts: [] }}");
        let fires = format!("alertname: {alert}\n        exp_alerts:\n");
        assert!(text.contains(&silent) && text.contains(&fires), "{alert}");
    }
    let many = alerts.len();
    assert_eq!(following("alerts.yml", "for: ").len(), many, "each alert says for how long");
    for severity in following("alerts.yml", "severity: ") {
        assert!(["page", "warn"].contains(&severity.as_str()), "{severity}");
    }
    assert_eq!(following("alerts.yml", "severity: ").len(), many);
    let books: BTreeSet<String> = following("alerts.yml", "runbook_url: ").into_iter().collect();
    let places =
        alerts.iter().map(|alert| format!("docs/operate.md#{}", alert.to_lowercase())).collect();
    assert_eq!(books, places, "each alert leads to its place in the operators' book");
    if there_is("promtool") {
        must_pass(&["check", "rules", "rules.yml", "alerts.yml"]);
        must_pass(&["check", "config", "prometheus.yml"]);
        must_pass(&["test", "rules", "alerts.test.yml"]);
    }
}

/// Prometheus on data of its own, ended when the test is.
struct Prometheus {
    child: Child,
    url: String,
    dir: TempDir,
}

impl Prometheus {
    /// Scrapes one address, with the rules of the house.
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

    /// What a path of its API answers; nothing while it does not.
    async fn ask(&self, path: &str, query: &[(&str, &str)]) -> Option<Value> {
        let request = reqwest::Client::new().get(format!("{}{path}", self.url)).query(query);
        let text = request.send().await.ok()?.text().await.ok()?;
        let answer: Value = serde_json::from_str(&text).ok()?;
        assert!(answer["status"] != "error", "{query:?}: {answer}\n{}", self.log());
        Some(answer["data"].clone())
    }

    /// Whether an expression gives at least one sample that is a number.
    async fn has_data(&self, expression: &str) -> bool {
        let Some(data) = self.ask("/api/v1/query", &[("query", expression)]).await else {
            return false;
        };
        let result = data["result"].as_array().cloned().unwrap_or_default();
        result.iter().any(|sample| sample["value"][1].as_str().is_some_and(|value| value != "NaN"))
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What panels ask, as Grafana would send it with everything selected.
fn asked_by_panels() -> Vec<String> {
    let all = panels().into_iter().flat_map(|(_, panel)| expressions(&panel));
    let all = all.map(|it| it.replace("$__rate_interval", RATE_INTERVAL));
    all.map(|it| {
        ["$job", "$instance", "$queue"].iter().fold(it, |text, name| text.replace(name, ".+"))
    })
    .collect()
}

/// A comparison gives nothing while all is well: what is compared must be there.
fn compared(expression: &str) -> String {
    let sides = [" > ", " == ", " >= "].iter().find_map(|sign| expression.rsplit_once(sign));
    sides.map_or(expression, |(left, _)| left).trim_start_matches("absent(").to_owned()
}

/// A process of its own, since what it counts belongs to the process, with something to sell.
async fn lively() -> (World, Process) {
    let stores = Stores::new().await;
    let limits = [
        ("USHER_LIMIT_USER_PER_SECOND", "1".to_owned()),
        ("USHER_LIMIT_USER_BURST", "100".to_owned()),
    ];
    let process = Process::start_with(&stores, &limits).await;
    let world = World { stores, instances: Vec::new(), api: process.api() };
    crate::recovery::restore::fair(&world, 100).await;
    let mut bounded = crate::coupons::payments::coupon(300, 0);
    bounded["total_quantity"] = json!(1_000);
    world.api.put("/admin/coupons/bounded", &bounded).await.expect(200);
    world
        .queue("full", json!({"promote_per_interval": 1, "max_active": 1, "max_waiting": 1}))
        .await;
    (world, process)
}

/// Some people who do a bit of everything; called again and again, so that rates have something to tell.
async fn load(world: &World, seat: u32) {
    let api = &world.api;
    let guest = api.active_guest(SHOW).await;
    api.charge(&guest.user, 10_000).await;
    if let Ok(held) = api.hold(&guest.token, NIGHT, &[seat]).await.as_held() {
        api.pay(&guest.token, &held, &new_key()).await;
    }
    for path in
        ["/v1/coupons/spring/issues", "/v1/coupons/bounded/issues", "/v1/rewards/hello/claims"]
    {
        api.post(path).user(&guest.user).send().await;
    }
    // A line that is full is a 503, and a user who asks too often hears 429.
    api.join("full", &new_user()).await;
    for _ in 0..60 {
        api.get("/v1/wallet").user(IMPATIENT).send().await;
    }
    api.admin_call(Method::GET, "/admin/queues").send().await;
}

/// Somebody who asks and asks.
const IMPATIENT: &str = "00000000-0000-4000-8000-0000000000aa";

trait AsHeld {
    fn as_held(&self) -> Result<String, u16>;
}

impl AsHeld for crate::support::Answer {
    fn as_held(&self) -> Result<String, u16> {
        self.body["id"]
            .as_str()
            .filter(|_| self.status == 201)
            .map(str::to_owned)
            .ok_or(self.status)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_exposed_is_sound() {
    if !there_is("promtool") {
        return;
    }
    let (world, _process) = lively().await;
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
async fn whatever_is_drawn_or_reckoned_has_data() {
    if !there_is("prometheus") {
        return;
    }
    let (world, process) = lively().await;
    let prometheus = Prometheus::start(process.admin.trim_start_matches("http://"));
    eventually("Prometheus has scraped", || async {
        let data = prometheus.ask("/api/v1/query", &[("query", "up == 1")]).await?;
        data["result"][0].is_object().then_some(())
    })
    .await;
    world.api.admin_call(Method::POST, "/admin/audit").send().await.expect(200);
    let mut open = asked_by_panels();
    open.extend(following_rules("rules.yml"));
    open.extend(following_rules("alerts.yml").iter().map(|it| compared(it)));
    assert!(open.len() > 70, "{}", open.len());
    let mut seat = 0;
    let deadline = std::time::Instant::now() + SEEN;
    while !open.is_empty() {
        seat = seat % 100 + 1;
        load(&world, seat).await;
        if open.iter().any(|it| it.contains("usher_recovery_seconds")) {
            lose_and_find_again(&world).await;
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
        assert!(std::time::Instant::now() < deadline, "without data after {SEEN:?}:\n{list}");
    }
    // The rules were reckoned by Prometheus itself, without an error.
    within(SEEN, "every rule is reckoned", || async {
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

/// Has one partition laid back. What nobody has recorded yet has no buckets, so the first time is not the one that a rate is made of.
async fn lose_and_find_again(world: &World) {
    let recoveries = async || {
        let text = world.api.keyless_admin_call(Method::GET, "/metrics").send().await.text;
        text.lines()
            .find_map(|line| line.strip_prefix("usher_recoveries_total ")?.parse::<u64>().ok())
            .unwrap()
    };
    let before = recoveries().await;
    world.stores.lose(world.stores.partition_of_user(IMPATIENT)).await;
    eventually("what was lost is laid back", || async {
        // Somebody has to ask for it, or the verifier comes by itself after a while.
        world.api.get("/v1/wallet").user(IMPATIENT).send().await;
        let again = recoveries().await > before;
        (again && world.api.get("/readyz").send().await.status == 200).then_some(())
    })
    .await;
}

/// The expressions of a file of rules, folded ones too.
fn following_rules(file: &str) -> Vec<String> {
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
