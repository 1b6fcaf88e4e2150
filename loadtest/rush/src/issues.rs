//! How the cost of a coupon grows with how many are issued. As in [`crate::scale`], the scripts are called directly on a private Redis that does nothing else.

use std::time::Duration;

use usher::dev::{PrivateRedis, TempDir};
use usher::ids::CouponId;
use usher::partition::Partitions;
use usher::redis::{Keys, Script, scripts};

use crate::redis::{Answer, Redis, command_stat, info_number};
use crate::scale::user;
use crate::table::{Table, figure};
use crate::{Failure, machine, print, progress};

/// Requests in one call while the coupon is given out: the most that a call takes.
const FULL: u64 = 256;
/// Requests in a call of a busy service.
const BATCH: u64 = 50;
/// Calls that are averaged.
const CALLS: u64 = 200;
/// Winners read in one call, as an instance does once the coupon is sold out.
const PAGE: &str = "500";
/// How long Redis takes at most to give back what the last writes left in its buffers.
const SETTLE: Duration = Duration::from_millis(1_100);

const READING: &str = "\nThe coupons are issued by `coupons/issue` itself in batches of 256, called directly. `bytes an issue` is the growth of used_memory over the \
issues, the outbox trimmed as the writer does; `hash bytes` that of MEMORY USAGE of `c:issues`. Times are µs of Redis' own count for the script call, AOF and network \
left out: `issue` and `repeat` (a winner who asks again) for one request in a batch of 50 (alone: a call with one request), `winners 500` for one page of those who won.\n";

/// Issues so many of one coupon each time and prints the table.
pub(crate) async fn run(counts: &[u64]) -> Result<(), Failure> {
    if counts.iter().any(|count| !(10_000..=5_000_000).contains(count)) {
        return Err("--issues must be from 10000 to 5000000 each".into());
    }
    let dir = TempDir::new("issues")?;
    let mut table = Table::new(&[
        "issued",
        "bytes an issue",
        "hash bytes",
        "issue µs",
        "issue alone",
        "repeat µs",
        "repeat alone",
        "winners 500",
    ]);
    print(&format!("{}\n\n", machine::describe()))?;
    for count in counts {
        progress(&format!("{count} issues"));
        // A server for each count: no memory of the one before.
        let server = PrivateRedis::start(&dir.path().join(count.to_string())).await?;
        let row = measure(server.port(), *count).await;
        server.stop().await?;
        table.row(row?);
    }
    print(&table.render())?;
    print(READING)
}

async fn measure(port: u16, count: u64) -> Result<Vec<String>, Failure> {
    let mut coupon = Coupon::open(port)?;
    let before = coupon.used_memory().await?;
    while coupon.issued < count {
        coupon.issue(FULL.min(count - coupon.issued))?;
    }
    let bytes = coupon.used_memory().await?.saturating_sub(before) as f64 / count as f64;
    let hash = coupon.key("c:issues");
    let hash_bytes: f64 = coupon.redis.text(&["MEMORY", "USAGE", &hash, "SAMPLES", "0"])?.parse()?;
    let step = count / CALLS;
    let issue = coupon.timed(|coupon, _| coupon.issue(BATCH))?;
    let issue_alone = coupon.timed(|coupon, _| coupon.issue(1))?;
    let repeat = coupon.timed(|coupon, call| coupon.ask(call * step, BATCH))?;
    let repeat_alone = coupon.timed(|coupon, call| coupon.ask(call * step, 1))?;
    let mut cursor = "0".to_owned();
    let winners = coupon.timed(|coupon, _| {
        cursor = coupon.winners(&cursor)?;
        Ok(())
    })?;
    let figures = [
        bytes,
        hash_bytes / count as f64,
        issue / BATCH as f64,
        issue_alone,
        repeat / BATCH as f64,
        repeat_alone,
        winners,
    ];
    Ok([count.to_string()].into_iter().chain(figures.map(figure)).collect())
}

/// An unlimited coupon in Redis.
struct Coupon {
    redis: Redis,
    prefix: String,
    issue: String,
    winners: String,
    issued: u64,
}

impl Coupon {
    fn open(port: u16) -> Result<Self, Failure> {
        let coupon: CouponId = "scale".parse()?;
        let partition = Keys::new("usher", Partitions::default()).partition(coupon.slot());
        let mut redis = Redis::open(port)?;
        let issue = redis.text(&["SCRIPT", "LOAD", scripts::COUPONS_ISSUE.body()])?;
        let winners = redis.text(&["SCRIPT", "LOAD", scripts::COUPONS_WINNERS.body()])?;
        let mut coupon = Self { redis, prefix: format!("usher:{{{partition}}}"), issue, winners, issued: 0 };
        let (generation, settings) = (coupon.key("generation"), coupon.key("c:settings"));
        coupon.redis.command(&["SET", &generation, "1"])?;
        let fields = [
            ["version", "1"],
            ["edition", "a"],
            ["total", ""],
            ["starts_at", "0"],
            ["ends_at", "253402300799999"],
            ["discount", "1"],
            ["min_amount", "0"],
            ["held", "0"],
            ["held_until", "0"],
        ];
        let words: Vec<&str> = ["HSET", &settings].into_iter().chain(fields.into_iter().flatten()).collect();
        coupon.redis.command(&words)?;
        Ok(coupon)
    }

    /// The key for one word of a `KEYS:` line.
    fn key(&self, word: &str) -> String {
        format!("{}:{}", self.prefix, word.replacen("c:", "c:scale:", 1))
    }

    async fn used_memory(&mut self) -> Result<u64, Failure> {
        let outbox = self.key("outbox");
        self.redis.command(&["XTRIM", &outbox, "MAXLEN", "0"])?;
        tokio::time::sleep(SETTLE).await;
        info_number(&self.redis.info("memory")?, "used_memory").ok_or_else(|| "Redis tells no memory".into())
    }

    /// New users get one each.
    fn issue(&mut self, count: u64) -> Result<(), Failure> {
        self.issued += count;
        self.ask(self.issued - count, count)
    }

    /// Users from a number on ask.
    fn ask(&mut self, from: u64, count: u64) -> Result<(), Failure> {
        let requests: Vec<u8> =
            (from..from + count).flat_map(|n| [user(n), user(n + (1 << 40))]).flatten().collect();
        let arguments = vec![b"scale".to_vec(), requests];
        self.call(&scripts::COUPONS_ISSUE, self.issue.clone(), arguments).map(drop)
    }

    /// Reads a page of those who have one; gives the next cursor.
    fn winners(&mut self, cursor: &str) -> Result<String, Failure> {
        let arguments = vec![cursor.into(), PAGE.into()];
        match self.call(&scripts::COUPONS_WINNERS, self.winners.clone(), arguments)?.into_iter().nth(6) {
            Some(Answer::Bytes(next)) => Ok(String::from_utf8(next)?),
            other => Err(format!("{other:?} is no cursor").into()),
        }
    }

    fn call(
        &mut self,
        script: &Script,
        sha: String,
        arguments: Vec<Vec<u8>>,
    ) -> Result<Vec<Answer>, Failure> {
        let keys: Vec<String> = script.keys().iter().map(|word| self.key(word)).collect();
        let mut words = vec![b"EVALSHA".to_vec(), sha.into(), keys.len().to_string().into()];
        words.extend(keys.into_iter().map(String::into_bytes));
        words.push(b"1".to_vec());
        words.extend(arguments);
        match self.redis.command(&words)? {
            Answer::List(answers) => Ok(answers),
            other => Err(format!("{} answered {other:?}", script.name()).into()),
        }
    }

    /// Microseconds of a call, on average.
    fn timed(&mut self, mut call: impl FnMut(&mut Self, u64) -> Result<(), Failure>) -> Result<f64, Failure> {
        let before = command_stat(&self.redis.info("commandstats")?, "evalsha").usec;
        for at in 0..CALLS {
            call(self, at)?;
        }
        let after = command_stat(&self.redis.info("commandstats")?, "evalsha").usec;
        Ok((after - before) as f64 / CALLS as f64)
    }
}
