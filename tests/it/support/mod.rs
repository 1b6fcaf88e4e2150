//! What the rooms' tests stand on: private servers, instances in this process and in processes of their own, a client, and an
//! audit that holds Redis against MySQL.

pub(crate) mod api;
pub(crate) mod audit;
pub(crate) mod certs;
pub(crate) mod cluster;
pub(crate) mod documents;
pub(crate) mod instance;
pub(crate) mod process;
pub(crate) mod relay;
pub(crate) mod resp;
pub(crate) mod sentinels;
pub(crate) mod servers;
pub(crate) mod skew;
pub(crate) mod sse;
pub(crate) mod world;

use std::io::Write;
use std::time::{Duration, Instant};

pub(crate) use api::{Answer, Api};
pub(crate) use cluster::Cluster;
pub(crate) use instance::Instance;
pub(crate) use process::Process;
pub(crate) use relay::{Lose, Relay, Relays};
pub(crate) use sentinels::Sentinels;
pub(crate) use servers::Stores;
pub(crate) use sse::{Said, Sse};
pub(crate) use usher::dev::TempDir;
pub(crate) use world::{NIGHT, SHOW, World};

/// How long an asynchronous fact may take. Far more than it needs, so that a loaded machine fails nothing.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// How long servers may take to agree on something.
pub(crate) const ELECTED: Duration = Duration::from_secs(90);
/// How often such a fact is looked for.
const LOOK: Duration = Duration::from_millis(15);

/// Reports that this machine lacks what the running test, or a part of it, needs. The test harness
/// counts the test as passed; `scripts/count-tests.sh` finds the line and counts it as skipped.
///
/// Writes to the process' own stderr, because the harness hides what a passing test prints.
pub(crate) fn skipped(reason: &str) {
    let thread = std::thread::current();
    let line = format!("SKIPPED {}: {reason}\n", thread.name().unwrap_or("main"));
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// The seed of a random test: `USHER_TEST_SEED`, or a random one if that is unset or empty. Below
/// 2^32, so that a test can count upwards from it. `make test` sets it, `make soak` does not.
pub(crate) fn test_seed() -> u64 {
    let seed = std::env::var("USHER_TEST_SEED").ok().filter(|text| !text.is_empty());
    let seed = seed.map_or_else(rand::random::<u32>, |text| text.parse().expect("USHER_TEST_SEED"));
    eprintln!("USHER_TEST_SEED={seed}");
    seed.into()
}

/// Waits until `look` gives something, and gives that.
#[track_caller]
pub(crate) fn eventually<T, F>(what: &str, look: impl FnMut() -> F) -> impl Future<Output = T>
where
    F: Future<Output = Option<T>>,
{
    within(PATIENCE, what, look)
}

/// The same for what takes longer, such as elections.
#[track_caller]
pub(crate) fn within<T, F>(
    patience: Duration,
    what: &str,
    mut look: impl FnMut() -> F,
) -> impl Future<Output = T>
where
    F: Future<Output = Option<T>>,
{
    let caller = std::panic::Location::caller();
    async move {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(found) = look().await {
                return found;
            }
            assert!(
                Instant::now() < deadline,
                "{what} did not happen within {patience:?} (asked at {caller})"
            );
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// Sends a signal with the shell's own `kill`, since a bare machine has no other.
pub(crate) fn signal(signal: &str, pid: u32) {
    let kill = format!("kill {signal} {pid}");
    let status = std::process::Command::new("/bin/sh").args(["-c", &kill]).status().unwrap();
    assert!(status.success(), "{kill}");
}

/// A user who was never seen.
pub(crate) fn new_user() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// A fresh idempotency key.
pub(crate) fn new_key() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// Runs each test on one instance and on two that share their stores.
macro_rules! on_one_and_two {
    ($($name:ident),* $(,)?) => {
        mod on_one_instance {$(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(crate::support::World::start(1).await).await;
            }
        )*}
        mod on_two_instances {$(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(crate::support::World::start(2).await).await;
            }
        )*}
    };
}
pub(crate) use on_one_and_two;
