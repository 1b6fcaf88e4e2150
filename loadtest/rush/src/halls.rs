//! Whether a seat of a large hall costs more than one of a small one. Like [`crate::scale`] it calls the scripts directly, on a private Redis that does nothing else.

use usher::dev::{PrivateRedis, TempDir};
use usher::ids::QueueId;
use usher::partition::{Partition, Partitions};
use usher::redis::{Keys, Script, scripts};

use crate::redis::{Answer, Redis, command_stat};
use crate::scale::{Loaded, OPENING, user};
use crate::table::{Table, figure};
use crate::{Failure, machine, print, progress};

/// Holds in a call of a busy service, one seat each. A small hall has as many free seats.
const BATCH: usize = 25;
/// Calls that are averaged.
const CALLS: usize = 100;
/// Numbers that one call of the map looks at, as the service asks for them.
const CHUNK: usize = 1_000;
/// What a hold's record has for itself, as MessagePack: one seat, no detail, 1,000, the lowest score.
const OWN: &[u8] = b"\x84\xa5seats\x91\x01\xa6detail\xa2[]\xa6amount\xcd\x03\xe8\xa5score\xad1099511627776";

const READING: &str = "\nEvery second seat is sold. Times are µs of Redis' own count for the script call, AOF and network left out: `hold` for one hold in a call of 25, \
`hold alone` for a call with one, `best alone` for a call that searches two seats side by side where there are none, `map` for a whole hall, a thousand numbers a call; \
`map a seat` is that over the seats.\n";

/// Measures halls of these sizes and prints the table.
pub(crate) async fn run(sizes: &[usize]) -> Result<(), Failure> {
    if sizes.iter().any(|size| !(2 * BATCH..=100_000).contains(size)) {
        return Err("--seats must be from 50 to 100000 each".into());
    }
    let dir = TempDir::new("halls")?;
    let mut table = Table::new(&["seats", "hold µs", "hold alone", "best alone", "map", "map a seat"]);
    print(&format!("{}\n\n", machine::describe()))?;
    for size in sizes {
        progress(&format!("halls of {size}"));
        let server = PrivateRedis::start(&dir.path().join(size.to_string())).await?;
        let row = measure(server.port(), *size);
        server.stop().await?;
        table.row(row?);
    }
    print(&table.render())?;
    print(READING)
}

fn measure(port: u16, size: usize) -> Result<Vec<String>, Failure> {
    let mut halls = Halls::open(port, size)?;
    let hold = halls.timed(|halls| halls.hold(BATCH))?;
    let alone = halls.timed(|halls| halls.hold(1))?;
    let best = halls.timed(Halls::best)?;
    let map = halls.timed(Halls::map)?;
    let figures = [hold / BATCH as f64, alone, best, map, map / size as f64];
    Ok([size.to_string()].into_iter().chain(figures.map(figure)).collect())
}

/// Halls of one size, one after the other: a new one whenever the last has no free seats left.
struct Halls {
    redis: Redis,
    partition: Partition,
    queue: QueueId,
    size: usize,
    hall: usize,
    /// Free seats of this hall that were held.
    held: usize,
    /// Holds so far: each is another user's.
    holds: usize,
    hold: Loaded,
    best: Loaded,
    map: Loaded,
}

impl Halls {
    fn open(port: u16, size: usize) -> Result<Self, Failure> {
        let queue: QueueId = "halls".parse()?;
        let partition = Keys::new("usher", Partitions::default()).partition(queue.slot());
        let mut redis = Redis::open(port)?;
        let mut load = |script: &'static Script| Loaded::load(&mut redis, script);
        let (hold, best, map) =
            (load(&scripts::SEATS_HOLD)?, load(&scripts::SEATS_BEST)?, load(&scripts::SEATS_MAP)?);
        let mut halls = Self { redis, partition, queue, size, hall: 0, held: 0, holds: 0, hold, best, map };
        let settings = halls.key("q:settings");
        let fields = ["mode", "open", "per_interval", "1", "interval_ms", "1000", "max_active", "1"];
        let more = ["active_ms", "300000", "claim_ms", "60000", "placement", "fifo", "seed", "0"];
        let words: Vec<&str> = ["HSET", &settings].into_iter().chain(fields).chain(more).collect();
        halls.redis.command(&words)?;
        for (command, key, field) in [("SET", "generation", None), ("HSET", "q:concerts", Some("halls"))] {
            let key = halls.key(key);
            let words: Vec<&str> = [command, &key].into_iter().chain(field).chain(["1"]).collect();
            halls.redis.command(&words)?;
        }
        halls.build()?;
        Ok(halls)
    }

    /// The key for one word of a `KEYS:` line.
    fn key(&self, word: &str) -> String {
        let name = match word.split_once(':') {
            Some(("q", name)) => format!("q:{}:{name}", self.queue),
            Some(("s", name)) => format!("s:hall-{}:{name}", self.hall),
            _ => word.to_owned(),
        };
        format!("usher:{{{}}}:{name}", self.partition)
    }

    /// A new hall, of which the even numbers are sold.
    fn build(&mut self) -> Result<(), Failure> {
        (self.hall, self.held) = (self.hall + 1, 0);
        let key = self.key("s:seats");
        let even: Vec<usize> = (1..=self.size).filter(|number| number % 2 == 0).collect();
        for part in even.chunks(500) {
            let mut words = vec!["HSET".to_owned(), key.clone()];
            words.extend(part.iter().flat_map(|number| [number.to_string(), "0123456789abcdefs".to_owned()]));
            self.redis.command(&words)?;
        }
        Ok(())
    }

    /// Active users hold a free seat each. Only the script's call is measured, so what is made before does not count.
    fn hold(&mut self, count: usize) -> Result<f64, Failure> {
        if self.held + count > self.size / 2 {
            self.build()?;
        }
        let mut requests = Vec::new();
        for _ in 0..count {
            let (user, score) = self.somebody()?;
            let id = crate::scale::user((1 << 40) + self.holds as u64);
            let seat = (2 * self.held + 1).to_string();
            self.held += 1;
            requests.extend([
                id.to_vec(),
                user.to_vec(),
                score.into(),
                OWN.to_vec(),
                "1".into(),
                seat.into(),
            ]);
        }
        self.call(|halls| &halls.hold, [self.terms(), requests].concat())
    }

    /// Somebody looks for two seats side by side, which there are none of, as far as one call looks.
    fn best(&mut self) -> Result<f64, Failure> {
        let (user, score) = self.somebody()?;
        let mut words = self.terms();
        words.extend(["1", "1", &self.size.to_string(), "1000", "}"].map(Into::into));
        words.extend([user.to_vec(), user.to_vec(), score.into()]);
        words.extend(["2", "1", "0", "0"].map(Into::into));
        self.call(|halls| &halls.best, words)
    }

    /// The map of a whole hall.
    fn map(&mut self) -> Result<f64, Failure> {
        let mut sum = 0.0;
        for first in (1..=self.size).step_by(CHUNK) {
            let last = self.size.min(first + CHUNK - 1);
            sum += self.call(|halls| &halls.map, vec![first.to_string().into(), last.to_string().into()])?;
        }
        Ok(sum)
    }

    /// A user who is active, with their score.
    fn somebody(&mut self) -> Result<([u8; 16], String), Failure> {
        self.holds += 1;
        let (user, score) = (user(self.holds as u64), (OPENING + 1).to_string());
        let (active, admitted) = (self.key("q:active"), self.key("q:admitted"));
        self.redis.command(&[b"ZADD".as_slice(), active.as_bytes(), b"99999999999999", &user])?;
        let slot = format!("{score} 99999999999999");
        self.redis.command(&[b"HSET".as_slice(), admitted.as_bytes(), &user, slot.as_bytes()])?;
        Ok((user, score))
    }

    /// What `lib/hold` reads.
    fn terms(&self) -> Vec<Vec<u8>> {
        let hall = format!("hall-{}", self.hall);
        ["halls", "halls", &hall, "1", "", "", "300000", "4"].map(Into::into).into()
    }

    /// Calls a script; gives the microseconds that it took.
    fn call(&mut self, which: impl Fn(&Self) -> &Loaded, arguments: Vec<Vec<u8>>) -> Result<f64, Failure> {
        let Loaded { script, sha } = which(self);
        let keys: Vec<String> = script.keys().iter().map(|word| self.key(word)).collect();
        let mut words: Vec<Vec<u8>> =
            vec![b"EVALSHA".to_vec(), sha.clone().into(), keys.len().to_string().into()];
        words.extend(keys.into_iter().map(String::into_bytes));
        words.push(b"1".to_vec());
        words.extend(arguments);
        let name = script.name();
        let before = command_stat(&self.redis.info("commandstats")?, "evalsha").usec;
        match self.redis.command(&words)? {
            Answer::List(_) => {}
            other => return Err(format!("{name} answered {other:?}").into()),
        }
        Ok((command_stat(&self.redis.info("commandstats")?, "evalsha").usec - before) as f64)
    }

    fn timed(&mut self, mut call: impl FnMut(&mut Self) -> Result<f64, Failure>) -> Result<f64, Failure> {
        let mut sum = 0.0;
        for _ in 0..CALLS {
            sum += call(self)?;
        }
        Ok(sum / CALLS as f64)
    }
}
