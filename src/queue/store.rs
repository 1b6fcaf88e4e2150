//! The scripts of the line, one function or batch each.

use crate::ids::{QueueId, UserId};
use crate::redis::{Args, Batch, Error, Place, Redis, Reply, Script, Words, scripts};

use super::settings::{Laid, Mode};

/// How the line looks, as every reply begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Redis' clock, milliseconds since 1970.
    pub now: i64,
    /// The mode that holds.
    pub mode: Mode,
    /// How many wait.
    pub waiting: u64,
    /// How many are active.
    pub active: u64,
    /// Admissions of the last 30 seconds.
    pub recent: u64,
    /// Whether every seat of the queue's concerts is sold.
    pub sold_out: bool,
}

/// Where a user stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// In line, at a 1-based position.
    Waiting {
        /// The position.
        position: u64,
    },
    /// Let in until a moment, milliseconds since 1970.
    Active {
        /// The moment.
        until: i64,
    },
    /// Neither.
    Expired,
}

/// What came of joining.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Joined {
    /// The user has a place; `fresh` when this call gave it.
    Placed {
        score: u64,
        standing: Standing,
        fresh: bool,
    },
    Closed,
    Full,
}

/// What one promotion did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Promoted {
    pub(super) waiting: u64,
    pub(super) active: u64,
    pub(super) promoted: u64,
    pub(super) no_shows: u64,
    pub(super) version: u64,
    /// Milliseconds until a further call can let anybody in as things stand; `None` when that can't be foreseen.
    pub(super) wait_ms: Option<u64>,
}

fn line(words: &mut Words) -> Result<Line, Error> {
    Ok(Line {
        now: words.int()?,
        mode: mode(words)?,
        waiting: words.count()?,
        active: words.count()?,
        recent: words.count()?,
        sold_out: words.int()? == 1,
    })
}

fn mode(words: &mut Words) -> Result<Mode, Error> {
    let word = words.text()?;
    Mode::from_word(&word).ok_or_else(|| Error::Protocol(format!("mode {word}")))
}

fn unknown_state(state: i64) -> Error {
    Error::Protocol(format!("state {state}"))
}

/// `queue/join`.
pub(super) struct Join(pub(super) Redis);

impl Batch for Join {
    type Entity = QueueId;
    type Request = UserId;
    type Answer = (Line, Joined);

    fn script(&self) -> &'static Script {
        &scripts::QUEUE_JOIN
    }

    async fn call(&self, queue: &QueueId, users: &[UserId]) -> Result<Vec<Self::Answer>, Error> {
        let mut args = Args::new();
        args.text(queue.as_str());
        for user in users {
            args.bytes(user.as_bytes());
        }
        let mut words =
            self.0.call(self.script(), Place::queue(self.0.keys(), queue), args).await?.words()?;
        let line = line(&mut words)?;
        words.rest().map(|reply| Ok((line.clone(), joined(reply)?))).collect()
    }
}

fn joined(reply: Reply) -> Result<Joined, Error> {
    let mut words = reply.words()?;
    let state = words.int()?;
    if let 5 | 6 = state {
        return Ok(if state == 5 { Joined::Closed } else { Joined::Full });
    }
    let (score, place) = (words.count()?, words.int()?);
    let standing = match state {
        1 | 2 => Standing::Waiting { position: u64::try_from(place).unwrap_or_default() },
        3 | 4 => Standing::Active { until: place },
        other => return Err(unknown_state(other)),
    };
    Ok(Joined::Placed { score, standing, fresh: matches!(state, 1 | 3) })
}

/// `queue/poll`.
pub(super) struct Poll(pub(super) Redis);

impl Batch for Poll {
    type Entity = QueueId;
    type Request = (UserId, u64);
    type Answer = (Line, Standing);

    fn script(&self) -> &'static Script {
        &scripts::QUEUE_POLL
    }

    async fn call(&self, queue: &QueueId, holders: &[(UserId, u64)]) -> Result<Vec<Self::Answer>, Error> {
        let place = Place::queue(self.0.keys(), queue);
        let mut words = self.0.call(self.script(), place, holders_args(holders)).await?.words()?;
        let line = line(&mut words)?;
        words.rest().map(|reply| Ok((line.clone(), standing(reply)?))).collect()
    }
}

fn holders_args(holders: &[(UserId, u64)]) -> Args {
    let mut args = Args::new();
    for (user, score) in holders {
        args.bytes(user.as_bytes()).text(&score.to_string());
    }
    args
}

fn standing(reply: Reply) -> Result<Standing, Error> {
    let mut words = reply.words()?;
    Ok(match words.int()? {
        1 => Standing::Waiting { position: words.count()? },
        2 => Standing::Active { until: words.int()? },
        3 => Standing::Expired,
        other => return Err(unknown_state(other)),
    })
}

/// `queue/leave`. The answer says whether there was a place or slot to give up.
pub(super) struct Leave(pub(super) Redis);

impl Batch for Leave {
    type Entity = QueueId;
    type Request = (UserId, u64);
    type Answer = bool;

    fn script(&self) -> &'static Script {
        &scripts::QUEUE_LEAVE
    }

    async fn call(&self, queue: &QueueId, holders: &[(UserId, u64)]) -> Result<Vec<bool>, Error> {
        let place = Place::queue(self.0.keys(), queue);
        let words = self.0.call(self.script(), place, holders_args(holders)).await?.words()?;
        words.rest().map(|state| Ok(state.int()? == 1)).collect()
    }
}

/// `queue/counts`. One call answers everybody who asks meanwhile.
pub(super) struct Counts(pub(super) Redis);

impl Batch for Counts {
    type Entity = QueueId;
    type Request = ();
    type Answer = (Line, u64);

    fn script(&self) -> &'static Script {
        &scripts::QUEUE_COUNTS
    }

    async fn call(&self, queue: &QueueId, asked: &[()]) -> Result<Vec<Self::Answer>, Error> {
        let place = Place::queue(self.0.keys(), queue);
        let mut words = self.0.call(self.script(), place, Args::new()).await?.words()?;
        let answer = (line(&mut words)?, words.count()?);
        Ok(vec![answer; asked.len()])
    }
}

/// `queue/promote`.
pub(super) async fn promote(redis: &Redis, queue: &QueueId) -> Result<Promoted, Error> {
    let mut args = Args::new();
    args.text(queue.as_str());
    let place = Place::queue(redis.keys(), queue);
    let mut words = redis.call(&scripts::QUEUE_PROMOTE, place, args).await?.words()?;
    words.int()?;
    mode(&mut words)?;
    let (waiting, active, promoted, no_shows) =
        (words.count()?, words.count()?, words.count()?, words.count()?);
    let (_lapsed, _admitted, version) = (words.count()?, words.count()?, words.count()?);
    let wait_ms = u64::try_from(words.int()?).ok();
    Ok(Promoted { waiting, active, promoted, no_shows, version, wait_ms })
}

/// `queue/configure`.
pub(super) async fn configure(redis: &Redis, queue: &QueueId, laid: &Laid) -> Result<(), Error> {
    let place = Place::queue(redis.keys(), queue);
    redis.call(&scripts::QUEUE_CONFIGURE, place, laid.to_args()).await.map(drop)
}
