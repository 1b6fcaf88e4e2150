//! An instance in a process of its own: the real binary, which can be killed.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use usher::dev::{TempDir, free_port};

use super::servers::{PARTITIONS, Stores, TOKEN_KEYS};
use super::{Api, eventually, signal};

/// The script under which private servers live: the process ends with its owner, however that ends.
const SUPERVISE: &str = include_str!("../../../src/dev/supervise.sh");

/// A running `usher serve`.
pub(crate) struct Process {
    /// `http://127.0.0.1:…` of the public listener.
    pub(crate) public: String,
    /// `http://127.0.0.1:…` of the admin listener.
    pub(crate) admin: String,
    pid: u32,
    /// A shell that only waits for a word to kill it: starting one takes longer than the moment that a test wants to hit.
    killer: std::process::Child,
    supervisor: Child,
    _owner: ChildStdin,
    _dir: TempDir,
    log: PathBuf,
}

impl Process {
    /// Starts the binary on ports that are free, and waits until it is ready.
    pub(crate) async fn start(stores: &Stores) -> Self {
        Self::start_with(stores, &[]).await
    }

    /// The same with fail points, as `src/failpoint` tells them.
    pub(crate) async fn start_failing(stores: &Stores, failpoints: &str) -> Self {
        Self::start_with(stores, &[("FAILPOINTS", failpoints.to_owned())]).await
    }

    /// The same with settings of its own, which win over the usual ones.
    pub(crate) async fn start_with(stores: &Stores, settings: &[(&'static str, String)]) -> Self {
        let mut process = Self::spawn(stores, settings).await;
        let ready = format!("{}/readyz", process.public);
        let client = reqwest::Client::new();
        eventually("the process is ready", || {
            let ended = process.supervisor.try_wait().unwrap();
            assert!(ended.is_none(), "it ended: {ended:?}\n{}", process.log());
            let asked = client.get(&ready).send();
            async move { asked.await.ok().filter(|answer| answer.status() == 200) }
        })
        .await;
        process
    }

    /// The same without waiting: whoever waits has to look whether it is still alive.
    pub(crate) async fn spawn(stores: &Stores, settings: &[(&'static str, String)]) -> Self {
        let [public, admin] = [free_port().unwrap(), free_port().unwrap()];
        let dir = TempDir::new("it-process").unwrap();
        let log = dir.path().join("log");
        let mut supervisor = Command::new("/bin/sh")
            .args(["-c", SUPERVISE, "supervise", "5", env!("CARGO_BIN_EXE_usher"), "serve"])
            .env("USHER_LISTEN", format!("127.0.0.1:{public}"))
            .env("USHER_ADMIN_LISTEN", format!("127.0.0.1:{admin}"))
            .env("USHER_REDIS_URL", stores.redis_url())
            .env("USHER_MYSQL_URL", &stores.mysql_url)
            .env("USHER_PARTITIONS", PARTITIONS.to_string())
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

    /// Waits until somebody in it has reached a fail point that does something.
    pub(crate) async fn reached(&self, point: &str) {
        let line = format!("fail point {point}: ");
        eventually(point, || async { self.log().contains(&line).then_some(()) }).await;
    }

    /// Waits until a fail point has killed it.
    pub(crate) async fn died(mut self) {
        // The shell's way to say that it was aborted.
        assert_eq!(self.ended().await.code(), Some(128 + 6), "{}", self.log());
    }

    /// A client of it alone.
    pub(crate) fn api(&self) -> Api {
        Api::new(vec![[self.public.clone(), self.admin.clone()]])
    }

    /// Waits until it stands still.
    pub(crate) async fn frozen(&self) {
        // Linux without its tools has no `ps`, and others have no /proc.
        let state =
            format!("cut -d ' ' -f 3 /proc/{0}/stat 2>/dev/null || ps -o state= -p {0}", self.pid);
        eventually("the process stands still", || async {
            let output = Command::new("/bin/sh").args(["-c", &state]).output().await.unwrap();
            output.stdout.starts_with(b"T").then_some(())
        })
        .await;
    }

    /// Freezes it.
    pub(crate) fn freeze(&self) {
        signal("-STOP", self.pid);
    }

    /// Lets it go on that is frozen.
    pub(crate) fn thaw(&self) {
        signal("-CONT", self.pid);
    }

    /// Asks it to stop.
    pub(crate) fn terminate(&self) {
        signal("-TERM", self.pid);
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        tokio::time::timeout(super::PATIENCE, self.supervisor.wait())
            .await
            .expect("it ends")
            .unwrap()
    }

    /// Waits until it is ready, or has ended.
    pub(crate) async fn comes_up(&mut self) -> bool {
        let client = reqwest::Client::new();
        let ready = format!("{}/readyz", self.public);
        loop {
            if self.supervisor.try_wait().unwrap().is_some() {
                return false;
            }
            if client.get(&ready).send().await.is_ok_and(|answer| answer.status() == 200) {
                return true;
            }
            tokio::time::sleep(super::LOOK).await;
        }
    }

    /// Waits for its end for as long as it takes. Safe to cancel.
    pub(crate) async fn wait(&mut self) {
        self.supervisor.wait().await.unwrap();
    }

    /// What it wrote.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    /// Whoever was not asked to kill ends when its input does.
    fn drop(&mut self) {
        drop(self.killer.stdin.take());
        let _ended = self.killer.wait();
    }
}
