//! How the cost of the line grows with its length. The scripts are called directly, without the service, on a private Redis that does nothing
//! else, so that Redis' own count of microseconds (`INFO commandstats`, `evalsha`) is that of the call alone.

use std::time::{Duration, Instant};

use usher::dev::{PrivateRedis, TempDir};
use usher::ids::QueueId;
use usher::partition::{Partition, Partitions};
use usher::redis::{Keys, Script, scripts};
use uuid::Builder;

use crate::redis::{Answer, Redis, command_stat, info_number};
use crate::table::{Table, figure};
use crate::{Failure, machine, print, progress};

/// Users who join in one call while the line is filled: the most that a call takes.
const FULL: usize = 256;
/// Users in a call of a busy service.
const BATCH: usize = 50;
/// Calls that are averaged.
const CALLS: usize = 200;
/// Promotions that are averaged, 500 users each.
const PROMOTIONS: usize = 10;
/// The lowest score after the opening.
pub(crate) const OPENING: u64 = 1 << 40;
/// How long Redis takes at most to give back what the last writes left in its buffers.
const SETTLE: Duration = Duration::from_millis(1_100);

const READING: &str = "\nThe line is filled by `queue/join` itself in batches of 256, called directly. `bytes a user` is the growth of used_memory over the \
users, `ZSET bytes` that of MEMORY USAGE. Times are µs of Redis' own count for the script call, AOF and network left out: `join` and `poll` for \
one request in a batch of 50 (alone: a call with one request), `promote 500` for the whole call, mean and longest of ten; `round trip` is the latter as its caller sees it, \
AOF included.\n";

/// Fills lines of these lengths and prints the table.
pub(crate) async fn run(lengths: &[usize]) -> Result<(), Failure> {
    if lengths.iter().any(|length| !(10_000..=5_000_000).contains(length)) {
        return Err("--waiting must be from 10000 to 5000000 each".into());
    }
    let dir = TempDir::new("scale")?;
    let mut table = Table::new(&[
        "waiting",
        "bytes a user",
        "ZSET bytes",
        "join µs",
        "join alone",
        "poll µs",
        "poll alone",
        "promote 500",
        "longest",
        "round trip",
    ]);
    print(&format!("{}\n\n", machine::describe()))?;
    for length in lengths {
        progress(&format!("a line of {length}"));
        // A server for each length: no memory of the one before.
        let server = PrivateRedis::start(&dir.path().join(length.to_string())).await?;
        let row = measure(server.port(), *length).await;
        server.stop().await?;
        table.row(row?);
    }
    print(&table.render())?;
    print(READING)
}

async fn measure(port: u16, length: usize) -> Result<Vec<String>, Failure> {
    let mut line = Line::open(port)?;
    line.settings("paused")?;
    let before = line.used_memory().await?;
    line.fill(length)?;
    let user_bytes = line.used_memory().await?.saturating_sub(before) as f64 / length as f64;
    let waiting = line.key("q:waiting");
    let zset: f64 = line.redis.text(&["MEMORY", "USAGE", &waiting, "SAMPLES", "0"])?.parse()?;

    let step = length / CALLS;
    let join = line.timed(CALLS, |line, _| line.join(BATCH))?;
    let join_alone = line.timed(CALLS, |line, _| line.join(1))?;
    let poll = line.timed(CALLS, |line, call| line.poll(call * step, BATCH))?;
    let poll_alone = line.timed(CALLS, |line, call| line.poll(call * step, 1))?;
    line.settings("open")?;
    let promote = line.timed(PROMOTIONS, |line, _| line.promote())?;
    let figures = [
        user_bytes,
        zset / length as f64,
        join.mean / BATCH as f64,
        join_alone.mean,
        poll.mean / BATCH as f64,
        poll_alone.mean,
        promote.mean,
        promote.longest,
        promote.round_trip,
    ];
    Ok([length.to_string()].into_iter().chain(figures.map(figure)).collect())
}

/// Microseconds of a series of calls.
#[derive(Default)]
struct Timed {
    mean: f64,
    longest: f64,
    round_trip: f64,
}

/// A script that Redis knows.
pub(crate) struct Loaded {
    pub(crate) script: &'static Script,
    pub(crate) sha: String,
}

impl Loaded {
    pub(crate) fn load(redis: &mut Redis, script: &'static Script) -> Result<Self, Failure> {
        Ok(Self { script, sha: redis.text(&["SCRIPT", "LOAD", script.body()])? })
    }
}

/// A queue's line in Redis.
struct Line {
    redis: Redis,
    partition: Partition,
    queue: QueueId,
    join: Loaded,
    poll: Loaded,
    promote: Loaded,
    joined: u64,
}

impl Line {
    fn open(port: u16) -> Result<Self, Failure> {
        let queue: QueueId = "scale".parse()?;
        let partition = Keys::new("usher", Partitions::default()).partition(queue.slot());
        let mut redis = Redis::open(port)?;
        let join = Loaded::load(&mut redis, &scripts::QUEUE_JOIN)?;
        let poll = Loaded::load(&mut redis, &scripts::QUEUE_POLL)?;
        let promote = Loaded::load(&mut redis, &scripts::QUEUE_PROMOTE)?;
        let mut line = Self { redis, partition, queue, join, poll, promote, joined: 0 };
        let generation = line.key("generation");
        line.redis.command(&["SET", &generation, "1"])?;
        Ok(line)
    }

    /// The key for one word of a `KEYS:` line.
    fn key(&self, word: &str) -> String {
        let queue = &self.queue;
        let name = word.strip_prefix("q:").map_or(word.to_owned(), |name| format!("q:{queue}:{name}"));
        format!("usher:{{{}}}:{name}", self.partition)
    }

    fn settings(&mut self, mode: &str) -> Result<(), Failure> {
        let fields = [
            ["mode", mode],
            ["per_interval", "1000000"],
            ["interval_ms", "1000"],
            ["max_active", "10000000"],
            ["active_ms", "300000"],
            ["claim_ms", "60000"],
            ["placement", "fifo"],
            ["seed", "0"],
            ["version", "1"],
        ];
        let key = self.key("q:settings");
        let words: Vec<&str> = ["HSET", &key].into_iter().chain(fields.into_iter().flatten()).collect();
        self.redis.command(&words)?;
        Ok(())
    }

    async fn used_memory(&mut self) -> Result<u64, Failure> {
        tokio::time::sleep(SETTLE).await;
        info_number(&self.redis.info("memory")?, "used_memory").ok_or_else(|| "Redis tells no memory".into())
    }

    fn fill(&mut self, count: usize) -> Result<(), Failure> {
        let mut left = count;
        while left > 0 {
            let batch = left.min(FULL);
            self.join(batch)?;
            left -= batch;
        }
        Ok(())
    }

    /// New users get in line.
    fn join(&mut self, count: usize) -> Result<(), Failure> {
        let first = self.joined;
        self.joined += count as u64;
        let users = (first..self.joined).map(|n| user(n).to_vec());
        let arguments = [self.queue.as_str().into()].into_iter().chain(users).collect();
        self.call(|line| &line.join, arguments)
    }

    /// Users from a place in the order of their coming on ask where they stand.
    fn poll(&mut self, from: usize, count: usize) -> Result<(), Failure> {
        let score = |n: u64| (OPENING + n + 1).to_string().into_bytes();
        let asking = (from as u64..).take(count).flat_map(|n| [user(n).to_vec(), score(n)]);
        self.call(|line| &line.poll, asking.collect())
    }

    fn promote(&mut self) -> Result<(), Failure> {
        self.call(|line| &line.promote, vec![self.queue.as_str().into()])
    }

    fn call(&mut self, which: impl Fn(&Self) -> &Loaded, arguments: Vec<Vec<u8>>) -> Result<(), Failure> {
        let Loaded { script, sha } = which(self);
        let keys: Vec<String> = script.keys().iter().map(|word| self.key(word)).collect();
        let mut words: Vec<Vec<u8>> =
            vec![b"EVALSHA".to_vec(), sha.clone().into(), keys.len().to_string().into()];
        words.extend(keys.into_iter().map(String::into_bytes));
        words.push(b"1".to_vec());
        words.extend(arguments);
        let name = script.name();
        match self.redis.command(&words)? {
            Answer::List(_) => Ok(()),
            other => Err(format!("{name} answered {other:?}").into()),
        }
    }

    fn timed(
        &mut self,
        calls: usize,
        mut call: impl FnMut(&mut Self, usize) -> Result<(), Failure>,
    ) -> Result<Timed, Failure> {
        let mut timed = Timed::default();
        for at in 0..calls {
            let before = self.script_usec()?;
            let started = Instant::now();
            call(self, at)?;
            timed.round_trip += started.elapsed().as_secs_f64() * 1e6 / calls as f64;
            let took = (self.script_usec()? - before) as f64;
            timed.mean += took / calls as f64;
            timed.longest = timed.longest.max(took);
        }
        Ok(timed)
    }

    fn script_usec(&mut self) -> Result<u64, Failure> {
        Ok(command_stat(&self.redis.info("commandstats")?, "evalsha").usec)
    }
}

/// A user by number: sixteen bytes in no order.
pub(crate) fn user(n: u64) -> [u8; 16] {
    let mixed = u128::from(n + 1).wrapping_mul(0x2545_f491_4f6c_dd1d_9e37_79b9_7f4a_7c15);
    Builder::from_random_bytes(mixed.to_be_bytes()).into_uuid().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_differ() {
        let users: std::collections::HashSet<_> = (0..10_000).map(user).collect();
        assert_eq!(users.len(), 10_000);
    }
}
