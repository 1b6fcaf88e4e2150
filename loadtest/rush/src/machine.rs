//! Describes the machine and the versions that a table was measured on.

use std::fs;
use std::process::Command;

use crate::BoxError;

/// One line: cores, processor, memory, platform, server versions, revision of this checkout.
pub(crate) fn describe() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let mut parts = vec![format!("{cores} cores")];
    parts.extend(value(&cpu, "model name"));
    parts.extend(value(&memory, "MemTotal").and_then(|total| gibibytes(&total)));
    parts.push(format!("{} {}", std::env::consts::OS, std::env::consts::ARCH));
    parts.extend(output_of("redis-server", &["--version"]).and_then(|text| redis_version(&text)));
    parts.extend(output_of("mariadbd", &["--version"]).and_then(|text| mariadb_version(&text)));
    parts.extend(
        output_of("git", &["rev-parse", "--short", "HEAD"]).map(|id| format!("usher at {id}")),
    );
    parts.join(", ")
}

/// Resident memory of a process (`VmRSS` in `/proc/<pid>/status`).
pub(crate) fn resident_bytes(pid: u32) -> Result<u64, BoxError> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = value(&status, "VmRSS").ok_or("/proc shows no VmRSS for the process")?;
    Ok(kib.strip_suffix(" kB").ok_or("VmRSS is not in kB")?.trim().parse::<u64>()? * 1024)
}

/// The first value of a `/proc` file of the form `name : value`.
fn value(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}

fn gibibytes(kib: &str) -> Option<String> {
    let kib: f64 = kib.strip_suffix(" kB")?.trim().parse().ok()?;
    Some(format!("{:.0} GiB", kib / f64::from(1 << 20)))
}

/// Standard output of a program that exits with success.
fn output_of(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn redis_version(text: &str) -> Option<String> {
    text.split_ascii_whitespace()
        .find_map(|word| word.strip_prefix("v="))
        .map(|version| format!("Redis {version}"))
}

fn mariadb_version(text: &str) -> Option<String> {
    let version = text.split_ascii_whitespace().skip_while(|word| *word != "Ver").nth(1)?;
    Some(format!("MariaDB {}", version.split('-').next().unwrap_or(version)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_parsed() {
        let redis = "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=1";
        assert_eq!(redis_version(redis).as_deref(), Some("Redis 7.0.15"));
        let mariadb =
            "mariadbd  Ver 10.11.6-MariaDB-0+deb12u1 for debian-linux-gnu on x86_64 (Debian 12)";
        assert_eq!(mariadb_version(mariadb).as_deref(), Some("MariaDB 10.11.6"));
        assert_eq!(redis_version("nothing"), None);
    }

    #[test]
    fn proc_values_are_parsed() {
        let text = "processor\t: 0\nmodel name\t: A: fast one\nMemTotal:       16777216 kB\n";
        assert_eq!(value(text, "model name").as_deref(), Some("A: fast one"));
        assert_eq!(
            value(text, "MemTotal").and_then(|kib| gibibytes(&kib)).as_deref(),
            Some("16 GiB")
        );
        assert_eq!(value(text, "model"), None);
    }
}
