//! Processes with a wrong clock: a small library, preloaded before libc, shifts the time that they
//! read, by a fixed number of seconds or by the one in a file.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use usher::dev::TempDir;

use super::{TestStores, UsherProcess};

/// Shifts only the wall clock. Monotonic clocks stay right, as on a machine whose date is wrong.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static long skew(void) {
    const char *seconds = getenv("SKEW_SECONDS"), *path = getenv("SKEW_FILE");
    char text[24];
    if (path) {
        int file = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY);
        if (file < 0) return 0;
        long length = syscall(SYS_read, file, text, sizeof text - 1);
        syscall(SYS_close, file);
        if (length <= 0) return 0;
        text[length] = 0;
        seconds = text;
    }
    return seconds ? atol(seconds) : 0;
}
int clock_gettime(clockid_t clock, struct timespec *now) {
    int status = syscall(SYS_clock_gettime, clock, now);
    if (status == 0 && clock == CLOCK_REALTIME) now->tv_sec += skew();
    return status;
}
int gettimeofday(struct timeval *now, void *zone) {
    struct timespec exact;
    int status = clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return status;
}
"#;

/// A Redis whose clock is off by the seconds in a file.
pub(crate) struct MovableRedisClock {
    pub(crate) program: PathBuf,
    file: PathBuf,
}

impl MovableRedisClock {
    pub(crate) fn set(&self, seconds: i64) {
        // Renamed, so that Redis never reads half of it.
        let new = self.file.with_extension("new");
        std::fs::write(&new, seconds.to_string()).unwrap();
        std::fs::rename(new, &self.file).unwrap();
    }
}

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

    /// A program that starts Redis with a clock that can be moved. The program is usable as long as
    /// this value lives.
    pub(crate) fn redis(&self) -> MovableRedisClock {
        let dir = self.shim.parent().unwrap();
        let (program, file) = (dir.join("redis"), dir.join("seconds"));
        let redis = usher::dev::redis_program().unwrap();
        let (shim, path) = (self.shim.display(), file.display());
        let script = format!(
            "#!/bin/sh\nexport LD_PRELOAD={shim} SKEW_FILE={path}\nexec {} \"$@\"\n",
            redis.display()
        );
        std::fs::write(&program, script).unwrap();
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(&program, executable).unwrap();
        MovableRedisClock { program, file }
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
