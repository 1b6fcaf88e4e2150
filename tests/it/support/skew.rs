//! Instances whose clock is wrong: a library of a few lines, loaded in front of the system's, answers their questions about the time.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use usher::dev::TempDir;

use super::{Process, Stores};

/// Only the calendar is moved. Clocks that measure spans are left alone, as they are on a machine whose calendar is wrong.
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

/// Makes clocks wrong.
pub(crate) struct Skew {
    shim: PathBuf,
    _dir: TempDir,
}

impl Skew {
    /// `None`, and a line that says so, where it can't be had: it takes Linux and a C compiler.
    pub(crate) fn new() -> Option<Self> {
        let dir = TempDir::new("it-skew").unwrap();
        let (source, shim) = (dir.path().join("skew.c"), dir.path().join("skew.so"));
        std::fs::write(&source, SHIM).unwrap();
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-o"]).arg(&shim).arg(&source).stderr(Stdio::null());
        let made =
            cfg!(target_os = "linux") && compiler.status().is_ok_and(|status| status.success());
        if !made {
            super::skipped("clocks can be made wrong only on Linux with a C compiler");
            return None;
        }
        Some(Self { shim, _dir: dir })
    }

    /// An instance whose clock is off by so many seconds, as its log shows.
    pub(crate) async fn start(&self, stores: &Stores, seconds: i64) -> Process {
        let environment = [
            ("LD_PRELOAD", self.shim.to_str().unwrap().to_owned()),
            ("SKEW_SECONDS", seconds.to_string()),
            ("USHER_LOG", "json".to_owned()),
        ];
        let process = Process::start_with(stores, &environment).await;
        let log = process.log();
        let line: serde_json::Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
        let time: chrono::DateTime<chrono::Utc> =
            line["timestamp"].as_str().unwrap().parse().unwrap();
        let off = (time - chrono::Utc::now()).num_seconds() - seconds;
        assert!((-60..=60).contains(&off), "the clock of the process is not off: {line}");
        process
    }
}
