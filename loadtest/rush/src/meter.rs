//! What the processes of a run have used: processor time from `/proc` (Linux alone), commands from Redis.

use std::fs;
use std::io;

use crate::Failure;
use crate::redis::{Redis, command_stat, info_number};
use crate::stack::Stack;

/// The kernel counts processor time for user space in hundredths of a second, whatever its own tick (`USER_HZ`).
const TICK_US: u64 = 10_000;

/// Microseconds of processor time, user and system.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Cpu {
    pub(crate) service: u64,
    pub(crate) redis: u64,
    pub(crate) mysql: u64,
    pub(crate) generator: u64,
}

/// A moment's counters, or the difference of two.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) cpu: Cpu,
    /// Calls of scripts.
    pub(crate) scripts: u64,
    /// Commands, those that scripts make included, those of the bench not.
    pub(crate) commands: u64,
}

impl Reading {
    /// Reads all counters of a stack.
    pub(crate) fn take(stack: &Stack, redis: &mut Redis) -> Result<Self, Failure> {
        let stats = redis.info("stats")?;
        let by_command = redis.info("commandstats")?;
        let commands = info_number(&stats, "total_commands_processed").ok_or("Redis counts no commands")?;
        Ok(Self {
            cpu: Cpu {
                service: cpu_us(stack.service_pid())?,
                redis: stack.redis_pids().map(cpu_us).sum::<io::Result<_>>()?,
                mysql: cpu_us(stack.mysql_pid())?,
                generator: cpu_us(std::process::id())?,
            },
            scripts: command_stat(&by_command, "evalsha").calls,
            commands: commands.saturating_sub(redis.sent()),
        })
    }

    /// What was used since an earlier reading.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let (now, then) = (&self.cpu, &earlier.cpu);
        Self {
            cpu: Cpu {
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

/// Processor time of a process and all its threads, in microseconds.
pub(crate) fn cpu_us(pid: u32) -> io::Result<u64> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).map_err(|cause| {
        io::Error::new(cause.kind(), format!("{path}: {cause} (processor time is read on Linux only)"))
    })?;
    ticks(&stat)
        .map(|ticks| ticks * TICK_US)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("{path} has another form")))
}

/// `utime` and `stime`, fields 14 and 15. The name before them, in parentheses, may hold anything.
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
    fn a_name_can_not_shift_the_fields() {
        let stat = "17 (a) b (c)) S 1 17 17 0 -1 4194560 5 0 0 0 120 34 0 0 20 0 9 0 555 1 2";
        assert_eq!(ticks(stat), Some(154));
        assert_eq!(ticks("17 (a) S 1"), None);
    }

    #[test]
    fn this_process_has_used_some_time_or_none() {
        assert!(cpu_us(std::process::id()).is_ok());
        assert!(cpu_us(u32::MAX).is_err());
    }

    #[test]
    fn a_difference_is_by_field() {
        let cpu = |service| Cpu { service, redis: 2, mysql: 3, generator: 4 };
        let (then, now) = (
            Reading { cpu: cpu(10), scripts: 1, commands: 5 },
            Reading { cpu: cpu(15), scripts: 4, commands: 5 },
        );
        let used = now.since(&then);
        assert_eq!((used.cpu.service, used.cpu.redis, used.scripts, used.commands), (5, 0, 3, 0));
    }
}
