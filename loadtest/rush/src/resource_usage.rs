//! Resources used during a run: CPU time from `/proc` (Linux only), command counts from Redis.

use std::fs;
use std::io;

use crate::BoxError;
use crate::redis_connection::{RedisConnection, command_calls, info_number};
use crate::stack::ServiceStack;

/// `/proc` reports CPU time in hundredths of a second (`USER_HZ`), whatever the kernel's tick is.
const TICK_US: u64 = 10_000;

/// CPU time of each process, user plus system, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CpuTimes {
    pub(crate) service: u64,
    pub(crate) redis: u64,
    pub(crate) mysql: u64,
    pub(crate) generator: u64,
}

/// Counters at one moment, or the difference between two moments.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ResourceUsage {
    pub(crate) cpu: CpuTimes,
    /// Script calls.
    pub(crate) scripts: u64,
    /// Redis commands, including those inside scripts, without those of the benchmark.
    pub(crate) commands: u64,
}

impl ResourceUsage {
    pub(crate) fn read(
        stack: &ServiceStack,
        redis: &mut RedisConnection,
    ) -> Result<Self, BoxError> {
        let stats = redis.info("stats")?;
        let by_command = redis.info("commandstats")?;
        let commands = info_number(&stats, "total_commands_processed")
            .ok_or("INFO shows no total_commands_processed")?;
        Ok(Self {
            cpu: CpuTimes {
                service: cpu_us(stack.service_pid())?,
                redis: cpu_us(stack.redis_pid())?,
                mysql: cpu_us(stack.mysql_pid())?,
                generator: cpu_us(std::process::id())?,
            },
            scripts: command_calls(&by_command, "evalsha"),
            commands: commands.saturating_sub(redis.commands_sent()),
        })
    }

    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let (now, then) = (&self.cpu, &earlier.cpu);
        Self {
            cpu: CpuTimes {
                service: now.service.saturating_sub(then.service),
                redis: now.redis.saturating_sub(then.redis),
                mysql: now.mysql.saturating_sub(then.mysql),
                generator: now.generator.saturating_sub(then.generator),
            },
            scripts: self.scripts.saturating_sub(earlier.scripts),
            commands: self.commands.saturating_sub(earlier.commands),
        }
    }
}

/// CPU time of a process and all its threads, in microseconds.
pub(crate) fn cpu_us(pid: u32) -> io::Result<u64> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).map_err(|cause| {
        io::Error::new(
            cause.kind(),
            format!("{path}: {cause} (CPU time can be read on Linux only)"),
        )
    })?;
    ticks(&stat).map(|ticks| ticks * TICK_US).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, format!("{path} has an unknown format"))
    })
}

/// `utime` plus `stime`, fields 14 and 15. The process name before them may contain spaces and
/// parentheses.
fn ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_name_does_not_shift_the_fields() {
        let stat = "17 (a) b (c)) S 1 17 17 0 -1 4194560 5 0 0 0 120 34 0 0 20 0 9 0 555 1 2";
        assert_eq!(ticks(stat), Some(154));
        assert_eq!(ticks("17 (a) S 1"), None);
    }

    #[test]
    fn cpu_time_of_this_process_is_readable() {
        assert!(cpu_us(std::process::id()).is_ok());
        assert!(cpu_us(u32::MAX).is_err());
    }

    #[test]
    fn difference_is_taken_per_field() {
        let cpu = |service| CpuTimes { service, redis: 2, mysql: 3, generator: 4 };
        let (then, now) = (
            ResourceUsage { cpu: cpu(10), scripts: 1, commands: 5 },
            ResourceUsage { cpu: cpu(15), scripts: 4, commands: 5 },
        );
        let used = now.since(&then);
        assert_eq!((used.cpu.service, used.cpu.redis, used.scripts, used.commands), (5, 0, 3, 0));
    }
}
