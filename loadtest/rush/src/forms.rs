//! The same work of a script in two forms, measured where the scripts run: why ours read and write as they do.
//!
//! As in [`crate::scale`], the server does nothing else and its own count of microseconds is told. The forms take turns, so a machine that drifts drifts for both.

use usher::dev::{PrivateRedis, TempDir};

use crate::redis::{Redis, command_stat};
use crate::scale::user;
use crate::table::{Table, figure};
use crate::{Failure, machine, print, progress};

/// Requests in a call.
const BATCH: usize = 50;
/// Turns of each form, and calls in one.
const TURNS: usize = 20;
const CALLS: usize = 20;
/// Users in line, and records, before anything is measured.
const THERE: u64 = 100_000;

/// What is there: the line, the records in both forms, and an outbox.
const KEYS: [&str; 4] = ["{forms}:line", "{forms}:packed", "{forms}:text", "{forms}:outbox"];

const FILL: &str = "\
local count = redis.call('ZCARD', KEYS[1])
for i, user in ipairs(ARGV) do
  redis.call('ZADD', KEYS[1], count + i, user)
  redis.call('HSET', KEYS[2], user, cmsgpack.pack({ status = 'confirmed', amount = 2500, count = 3, at = 1700000000000 }))
  redis.call('HSET', KEYS[3], user, 'confirmed 2500 3 1700000000000')
end";

/// Some work, and two ways to do it for all of `ARGV`.
struct Work {
    name: &'static str,
    /// Whether each call is about users who are not there yet.
    fresh: bool,
    forms: [(&'static str, &'static str); 2],
}

const WORKS: [Work; 6] = [
    Work {
        name: "where users stand",
        fresh: false,
        forms: [
            ("`ZSCORE` for each", "for i = 1, #ARGV do redis.call('ZSCORE', KEYS[1], ARGV[i]) end"),
            ("one `ZMSCORE`", "redis.call('ZMSCORE', KEYS[1], unpack(ARGV))"),
        ],
    },
    Work {
        name: "users get in line",
        fresh: true,
        forms: [
            (
                "`ZADD` for each",
                "local count = redis.call('ZCARD', KEYS[1])
                for i, user in ipairs(ARGV) do redis.call('ZADD', KEYS[1], count + i, user) end",
            ),
            (
                "one `ZADD`",
                "local count, entries = redis.call('ZCARD', KEYS[1]), {}
                for i, user in ipairs(ARGV) do entries[2 * i - 1], entries[2 * i] = count + i, user end
                redis.call('ZADD', KEYS[1], unpack(entries))",
            ),
        ],
    },
    Work {
        name: "records are read",
        fresh: false,
        forms: [
            ("`HGET` for each", "for i = 1, #ARGV do redis.call('HGET', KEYS[3], ARGV[i]) end"),
            ("one `HMGET`", "redis.call('HMGET', KEYS[3], unpack(ARGV))"),
        ],
    },
    Work {
        name: "two fields of records",
        fresh: false,
        forms: [
            (
                "MessagePack",
                "local sum = 0
                for _, value in ipairs(redis.call('HMGET', KEYS[2], unpack(ARGV))) do
                  local record = cmsgpack.unpack(value)
                  if record.status == 'confirmed' then sum = sum + record.amount end
                end",
            ),
            (
                "a plain string",
                "local sum = 0
                for _, value in ipairs(redis.call('HMGET', KEYS[3], unpack(ARGV))) do
                  local status, amount = string.match(value, '^(%a+) (%d+)')
                  if status == 'confirmed' then sum = sum + tonumber(amount) end
                end",
            ),
        ],
    },
    Work {
        name: "a state and a number for each",
        fresh: false,
        forms: [
            (
                "a list of two",
                "local replies = {}
                for i = 1, #ARGV do replies[i] = { 1, i } end
                return replies",
            ),
            (
                "one number",
                "local replies = {}
                for i = 1, #ARGV do replies[i] = 8 * i + 1 end
                return replies",
            ),
        ],
    },
    Work {
        name: "an event for each",
        fresh: false,
        forms: [
            (
                "an entry for each",
                "for i = 1, #ARGV do
                  redis.call('XADD', KEYS[4], 'MAXLEN', '~', 1000, '*', 'v1', cmsgpack.pack({ user = ARGV[i], at = 1700000000000 }))
                end",
            ),
            (
                "one entry of all",
                "local events = {}
                for i = 1, #ARGV do events[i] = { user = ARGV[i], at = 1700000000000 } end
                redis.call('XADD', KEYS[4], 'MAXLEN', '~', 1000, '*', 'v1', cmsgpack.pack(events))",
            ),
        ],
    },
];

/// Measures each work in both forms and prints the table.
pub(crate) async fn run() -> Result<(), Failure> {
    let dir = TempDir::new("forms")?;
    let server = PrivateRedis::start(dir.path()).await?;
    let table = measure(server.port());
    server.stop().await?;
    print(&format!("{}\n\n", machine::describe()))?;
    print(&table?.render())?;
    print(&format!(
        "\nµs of Redis' own count for one request in a call of {BATCH}, over {THERE} users; the forms in turns of {CALLS} calls, {TURNS} each.\n"
    ))
}

fn measure(port: u16) -> Result<Table, Failure> {
    let mut redis = Redis::open(port)?;
    let fill = redis.text(&["SCRIPT", "LOAD", FILL])?;
    for from in (0..THERE).step_by(500) {
        call(&mut redis, &fill, from..from + 500)?;
    }
    let mut table = Table::new(&["work", "one form", "µs", "the other", "µs", "other / one"]);
    let mut fresh = THERE;
    for work in WORKS {
        progress(work.name);
        let mut spent = [0_u64; 2];
        for turn in 0..TURNS {
            for (form, spent) in work.forms.iter().zip(&mut spent) {
                let sha = redis.text(&["SCRIPT", "LOAD", form.1])?;
                let before = command_stat(&redis.info("commandstats")?, "evalsha").usec;
                for nth in 0..CALLS {
                    let from = if work.fresh { fresh } else { ((turn * CALLS + nth) * BATCH) as u64 };
                    fresh = fresh.max(from + BATCH as u64);
                    call(&mut redis, &sha, from..from + BATCH as u64)?;
                }
                *spent += command_stat(&redis.info("commandstats")?, "evalsha").usec - before;
            }
        }
        let [one, other] = spent.map(|usec| usec as f64 / (TURNS * CALLS * BATCH) as f64);
        let [(first, _), (second, _)] = work.forms;
        table.row(vec![
            work.name.to_owned(),
            first.to_owned(),
            figure(one),
            second.to_owned(),
            figure(other),
            figure(other / one),
        ]);
    }
    Ok(table)
}

/// Calls a script with the keys and with users by their numbers.
fn call(redis: &mut Redis, sha: &str, users: std::ops::Range<u64>) -> Result<(), Failure> {
    let head = ["EVALSHA", sha, "4"].into_iter().chain(KEYS).map(|word| word.as_bytes().to_vec());
    let words: Vec<Vec<u8>> = head.chain(users.map(|n| user(n).to_vec())).collect();
    redis.command(&words)?;
    Ok(())
}
