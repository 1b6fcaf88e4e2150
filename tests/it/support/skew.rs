//! Processes with a wrong clock: a small library, preloaded before libc, shifts the time that they
//! read.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use usher::dev::TempDir;

use super::{TestStores, UsherProcess};

/// Shifts only the wall clock. Monotonic clocks stay right, as on a machine whose date is wrong.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t clock, struct timespec *now) {
    int status = syscall(SYS_clock_gettime, clock, now);
    if (status == 0 && clock == CLOCK_REALTIME) {
        const char *skew = getenv("SKEW_SECONDS");
        if (skew) now->tv_sec += atol(skew);
    }
    return status;
}
"#;

/// Shifts the clocks of processes.
pub(crate) struct ClockSkew {
    shim: PathBuf,
    _dir: TempDir,
}

impl ClockSkew {
    /// `None`, and the test counts as skipped, without Linux and a C compiler.
    pub(crate) fn new() -> Option<Self> {
        let dir = TempDir::new("it-skew").unwrap();
        let (source, shim) = (dir.path().join("skew.c"), dir.path().join("skew.so"));
        std::fs::write(&source, SHIM).unwrap();
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-o"]).arg(&shim).arg(&source).stderr(Stdio::null());
        let made =
            cfg!(target_os = "linux") && compiler.status().is_ok_and(|status| status.success());
        if !made {
            super::skipped("shifting the clock needs Linux and a C compiler");
            return None;
        }
        Some(Self { shim, _dir: dir })
    }

    /// An instance whose clock is off by this many seconds, checked by its log.
    pub(crate) async fn start(&self, stores: &TestStores, seconds: i64) -> UsherProcess {
        let environment = [
            ("LD_PRELOAD", self.shim.to_str().unwrap().to_owned()),
            ("SKEW_SECONDS", seconds.to_string()),
            ("USHER_LOG", "json".to_owned()),
        ];
        let process = UsherProcess::start_with(stores, &environment).await;
        let log = process.log();
        let line: serde_json::Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
        let time: chrono::DateTime<chrono::Utc> =
            line["timestamp"].as_str().unwrap().parse().unwrap();
        let off = (time - chrono::Utc::now()).num_seconds() - seconds;
        assert!((-60..=60).contains(&off), "the clock of the process is not shifted: {line}");
        process
    }
}
