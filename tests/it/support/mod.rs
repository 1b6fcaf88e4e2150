//! Support for the tests: private servers, instances in this process and in their own processes, an
//! API client, and an audit that compares Redis with MySQL.

pub(crate) mod api;
pub(crate) mod audit;
pub(crate) mod certs;
pub(crate) mod cluster;
pub(crate) mod documents;
pub(crate) mod instance;
pub(crate) mod mysql_copy;
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

pub(crate) use api::{ApiClient, ApiResponse};
pub(crate) use cluster::RedisCluster;
pub(crate) use instance::TestInstance;
pub(crate) use process::UsherProcess;
pub(crate) use relay::{LossTarget, StoreRelays, TcpRelay};
pub(crate) use sentinels::SentinelGroup;
pub(crate) use servers::TestStores;
pub(crate) use sse::{EventStream, StreamItem};
pub(crate) use usher::dev::TempDir;
pub(crate) use world::{CONCERT, SCHEDULE, TestWorld};

/// Limit for an asynchronous change. Far longer than needed, so that a loaded machine fails no
/// test.
pub(crate) const EVENT_TIMEOUT: Duration = Duration::from_secs(60);
/// Limit for elections and other agreements between servers.
pub(crate) const ELECTION_TIMEOUT: Duration = Duration::from_secs(90);
/// Pause between two checks of an awaited condition.
const POLL_INTERVAL: Duration = Duration::from_millis(15);

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

/// Waits until `look` returns `Some`, and returns the value.
#[track_caller]
pub(crate) fn eventually<T, F>(what: &str, look: impl FnMut() -> F) -> impl Future<Output = T>
where
    F: Future<Output = Option<T>>,
{
    within(EVENT_TIMEOUT, what, look)
}

/// As [`eventually`], with another limit.
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
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}

/// Sends a signal with the `kill` of the shell, because a minimal machine has no other.
pub(crate) fn signal(signal: &str, pid: u32) {
    let kill = format!("kill {signal} {pid}");
    let status = std::process::Command::new("/bin/sh").args(["-c", &kill]).status().unwrap();
    assert!(status.success(), "{kill}");
}

/// A random user id.
pub(crate) fn new_user() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// A random idempotency key.
pub(crate) fn new_key() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// Runs each test on one instance and on two instances that share their stores.
macro_rules! on_one_and_two {
    ($($name:ident),* $(,)?) => {
        mod on_one_instance {$(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(crate::support::TestWorld::start(1).await).await;
            }
        )*}
        mod on_two_instances {$(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(crate::support::TestWorld::start(2).await).await;
            }
        )*}
    };
}
pub(crate) use on_one_and_two;
