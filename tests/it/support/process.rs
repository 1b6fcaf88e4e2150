//! An instance in its own process: the real binary, which tests can kill.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use usher::dev::{TempDir, free_port};

use super::servers::{TOKEN_KEYS, TestStores};
use super::{ApiClient, eventually, signal};

/// The script that supervises private servers: the process ends with its owner, even when that is
/// killed.
const SUPERVISE: &str = include_str!("../../../src/dev/supervise.sh");

/// A running `usher serve`.
pub(crate) struct UsherProcess {
    /// `http://127.0.0.1:…` of the public listener.
    pub(crate) public: String,
    /// `http://127.0.0.1:…` of the admin listener.
    pub(crate) admin: String,
    pid: u32,
    /// A shell that waits for a line and then kills the process: starting a shell takes longer than
    /// the moment that a test has to hit.
    killer: std::process::Child,
    supervisor: Child,
    _owner: ChildStdin,
    _dir: TempDir,
    log: PathBuf,
}

/// Scripts that `payment/pay` replaces.
const PAYMENT_STEPS: [&str; 4] =
    ["idempotency/bind.", "payment/begin.", "wallet/debit.", "payment/confirm."];

impl UsherProcess {
    /// Starts the binary on free ports and waits until it is ready.
    pub(crate) async fn start(stores: &TestStores) -> Self {
        Self::start_with(stores, &[]).await
    }

    /// As [`Self::start`], with fail points (see `src/failpoint`). With one at a step of a payment,
    /// all payments are made in steps.
    pub(crate) async fn start_failing(stores: &TestStores, failpoints: &str) -> Self {
        let mut points = failpoints.to_owned();
        if PAYMENT_STEPS.iter().any(|step| failpoints.contains(step)) {
            points.push_str(";redis.many_servers=return");
        }
        Self::start_with(stores, &[("FAILPOINTS", points)]).await
    }

    /// As [`Self::start`], with settings that override the usual ones.
    pub(crate) async fn start_with(
        stores: &TestStores,
        settings: &[(&'static str, String)],
    ) -> Self {
        let mut process = Self::spawn(stores, settings).await;
        let ready = format!("{}/readyz?strict=true", process.public);
        let client = reqwest::Client::new();
        eventually("the process is ready", || {
            let ended = process.supervisor.try_wait().unwrap();
            assert!(ended.is_none(), "the process ended: {ended:?}\n{}", process.log());
            let asked = client.get(&ready).send();
            async move { asked.await.ok().filter(|answer| answer.status() == 200) }
        })
        .await;
        process
    }

    /// As [`Self::start_with`], without waiting. The caller checks whether the process is still
    /// alive.
    pub(crate) async fn spawn(stores: &TestStores, settings: &[(&'static str, String)]) -> Self {
        let [public, admin] = [free_port().unwrap(), free_port().unwrap()];
        let dir = TempDir::new("it-process").unwrap();
        let log = dir.path().join("log");
        let mut supervisor = Command::new("/bin/sh")
            .args(["-c", SUPERVISE, "supervise", "5", env!("CARGO_BIN_EXE_usher"), "serve"])
            .env("USHER_LISTEN", format!("127.0.0.1:{public}"))
            .env("USHER_ADMIN_LISTEN", format!("127.0.0.1:{admin}"))
            .env("USHER_REDIS_URL", stores.redis_url())
            .env("USHER_MYSQL_URL", &stores.mysql_url)
            .env("USHER_KEY_PREFIX", &stores.prefix)
            .env("USHER_AUTH", "header")
            .env("USHER_ADMIN_KEY", super::servers::ADMIN_KEY)
            .env("USHER_TOKEN_KEYS", TOKEN_KEYS)
            .env("USHER_DRAIN_SECONDS", "8")
            .envs(settings.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log).unwrap())
            .process_group(0)
            .spawn()
            .unwrap();
        let owner = supervisor.stdin.take().unwrap();
        let mut said = BufReader::new(supervisor.stdout.take().unwrap()).lines();
        let pid = said.next_line().await.unwrap().unwrap().parse().unwrap();
        let killer = std::process::Command::new("/bin/sh")
            .args(["-c", &format!("read -r _ && kill -KILL {pid}")])
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let url = |port| format!("http://127.0.0.1:{port}");
        Self {
            public: url(public),
            admin: url(admin),
            pid,
            killer,
            supervisor,
            _owner: owner,
            _dir: dir,
            log,
        }
    }

    /// Kills it with -9 and waits until it is gone.
    pub(crate) async fn kill(mut self) {
        self.killer.stdin.take().unwrap().write_all(b"now\n").unwrap();
        self.supervisor.wait().await.unwrap();
    }

    /// Waits until the process has reached a fail point that does something.
    pub(crate) async fn wait_for_failpoint(&self, point: &str) {
        let line = format!("fail point {point}: ");
        eventually(point, || async { self.log().contains(&line).then_some(()) }).await;
    }

    /// Waits until a fail point has killed the process.
    pub(crate) async fn wait_until_killed(mut self) {
        // The exit code of a shell whose child was aborted.
        assert_eq!(self.wait_for_exit().await.code(), Some(128 + 6), "{}", self.log());
    }

    pub(crate) fn api(&self) -> ApiClient {
        ApiClient::new(vec![[self.public.clone(), self.admin.clone()]])
    }

    pub(crate) async fn wait_until_frozen(&self) {
        // Minimal Linux has no `ps`, and other systems have no /proc.
        let state =
            format!("cut -d ' ' -f 3 /proc/{0}/stat 2>/dev/null || ps -o state= -p {0}", self.pid);
        eventually("the process is frozen", || async {
            let output = Command::new("/bin/sh").args(["-c", &state]).output().await.unwrap();
            output.stdout.starts_with(b"T").then_some(())
        })
        .await;
    }

    pub(crate) fn freeze(&self) {
        signal("-STOP", self.pid);
    }

    pub(crate) fn thaw(&self) {
        signal("-CONT", self.pid);
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        signal("-TERM", self.pid);
    }

    pub(crate) async fn wait_for_exit(&mut self) -> ExitStatus {
        tokio::time::timeout(super::EVENT_TIMEOUT, self.supervisor.wait())
            .await
            .expect("the process ends")
            .unwrap()
    }

    /// Waits until it is ready (true) or has ended (false).
    pub(crate) async fn becomes_ready(&mut self) -> bool {
        let client = reqwest::Client::new();
        let ready = format!("{}/readyz?strict=true", self.public);
        loop {
            if self.supervisor.try_wait().unwrap().is_some() {
                return false;
            }
            if client.get(&ready).send().await.is_ok_and(|answer| answer.status() == 200) {
                return true;
            }
            tokio::time::sleep(super::POLL_INTERVAL).await;
        }
    }

    /// Waits for its end without a limit. Safe to cancel.
    pub(crate) async fn wait(&mut self) {
        self.supervisor.wait().await.unwrap();
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for UsherProcess {
    /// The supervised process ends when the input of its shell is closed.
    fn drop(&mut self) {
        drop(self.killer.stdin.take());
        let _ended = self.killer.wait();
    }
}
