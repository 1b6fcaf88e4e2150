//! The scripts of the line, one function or batch each.

use std::time::Instant;

use crate::ids::{QueueId, UserId};
use crate::redis::codes::{QueueJoinCode, QueueLeaveCode, QueuePollCode};
use crate::redis::{
    BatchScript, Error, KeyBuilder, KeyScope, LuaScript, RedisClient, ReplyReader, ScriptArgs,
    ScriptReply, scripts,
};

use super::settings::{PublishedQueue, QueueMode};
use super::snapshot::{QueueState, Snapshot};
use crate::telemetry::Metric;

/// Where a user stands in Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MembershipState {
    /// In line.
    Waiting,
    /// Let in until a moment, milliseconds since 1970.
    Active { until: i64 },
    /// Neither.
    Expired,
}

/// What came of joining.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JoinOutcome {
    /// The user has a place; `fresh` when this call gave it.
    Placed {
        score: u64,
        seen: MembershipState,
        fresh: bool,
    },
    Closed,
    Full,
}

/// What one promotion did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PromoteOutcome {
    pub(super) waiting: u64,
    pub(super) active: u64,
    pub(super) promoted: u64,
    pub(super) no_shows: u64,
    pub(super) version: u64,
    /// Milliseconds until a further call can let anybody in as things stand; `None` when that can't be foreseen.
    pub(super) wait_ms: Option<u64>,
    /// Redis' clock, milliseconds since 1970.
    pub(super) now: i64,
    /// The last score that was dealt to an arrival.
    pub(super) newest: u64,
    /// The lowest and the highest score that was let in.
    pub(super) scores: Option<(u64, u64)>,
}

fn mode(words: &mut ReplyReader) -> Result<QueueMode, Error> {
    let word = words.text()?;
    QueueMode::from_word(&word).ok_or_else(|| Error::Protocol(format!("mode {word}")))
}

/// `queue/join`.
pub(super) struct JoinBatch;

impl BatchScript for JoinBatch {
    type Entity = QueueId;
    type Request = UserId;
    type Answer = (Option<u64>, JoinOutcome);

    fn script(&self) -> &'static LuaScript {
        &scripts::QUEUE_JOIN
    }

    fn scope<'a>(&self, keys: &KeyBuilder, entity: &'a QueueId) -> KeyScope<'a> {
        KeyScope::queue(keys, entity)
    }

    fn write_args(
        &self,
        entity: &QueueId,
        requests: &[UserId],
        args: &mut ScriptArgs,
    ) -> Result<(), Error> {
        args.text(entity.as_str());
        args.each(requests.iter().map(|user| user.as_bytes()));
        Ok(())
    }

    fn read_answers(
        &self,
        entity: &QueueId,
        _: &[UserId],
        mut reply: ReplyReader,
    ) -> Result<Vec<(Option<u64>, JoinOutcome)>, Error> {
        let _now = reply.int()?;
        let front = u64::try_from(reply.int()?).ok();
        let words = numbers(reply.word()?)?;
        let mut slot_ends = reply.word()?.words()?;
        let answers: Vec<Self::Answer> = words
            .into_iter()
            .map(|word| Ok((front, join_outcome(word, &mut slot_ends)?)))
            .collect::<Result<_, Error>>()?;
        count_admitted(entity, &answers);
        Ok(answers)
    }
}

/// Those who were let in at once did not wait.
fn count_admitted(queue: &QueueId, answers: &[(Option<u64>, JoinOutcome)]) {
    let at_once = |joined: &JoinOutcome| {
        matches!(
            joined,
            JoinOutcome::Placed { seen: MembershipState::Active { .. }, fresh: true, .. }
        )
    };
    let admitted = answers.iter().filter(|(_, joined)| at_once(joined)).count();
    if admitted > 0 {
        let labels = [("queue", queue.as_str())];
        Metric::QueueAdmittedTotal.counter(&labels).increment(admitted as u64);
        Metric::QueueWaitSeconds.histogram(&labels).record_many(0.0, admitted);
    }
}

/// Reads 8 × score + code. `slot_ends` are the ends of the slots of all active users, in order.
fn join_outcome(word: u64, slot_ends: &mut ReplyReader) -> Result<JoinOutcome, Error> {
    let (score, code) = (word >> 3, (word & 7) as i64);
    let code: QueueJoinCode = ScriptReply::Int(code).code()?;
    let seen = match code {
        QueueJoinCode::Joined | QueueJoinCode::Waiting => MembershipState::Waiting,
        QueueJoinCode::Admitted | QueueJoinCode::Active => {
            MembershipState::Active { until: slot_ends.int()? }
        }
        QueueJoinCode::Closed => return Ok(JoinOutcome::Closed),
        QueueJoinCode::Full => return Ok(JoinOutcome::Full),
    };
    let fresh = matches!(code, QueueJoinCode::Joined | QueueJoinCode::Admitted);
    Ok(JoinOutcome::Placed { score, seen, fresh })
}

/// `queue/poll`.
pub(super) struct PollBatch;

impl BatchScript for PollBatch {
    type Entity = QueueId;
    type Request = (UserId, u64);
    type Answer = MembershipState;

    fn script(&self) -> &'static LuaScript {
        &scripts::QUEUE_POLL
    }

    fn scope<'a>(&self, keys: &KeyBuilder, entity: &'a QueueId) -> KeyScope<'a> {
        KeyScope::queue(keys, entity)
    }

    fn write_args(
        &self,
        _: &QueueId,
        requests: &[(UserId, u64)],
        args: &mut ScriptArgs,
    ) -> Result<(), Error> {
        write_holders(requests, args);
        Ok(())
    }

    fn read_answers(
        &self,
        _: &QueueId,
        _: &[(UserId, u64)],
        mut reply: ReplyReader,
    ) -> Result<Vec<MembershipState>, Error> {
        let _now = reply.int()?;
        reply.rest().map(membership_state).collect()
    }
}

fn write_holders(holders: &[(UserId, u64)], args: &mut ScriptArgs) {
    for (user, score) in holders {
        args.bytes(user.as_bytes()).text(&score.to_string());
    }
}

fn membership_state(reply: ScriptReply) -> Result<MembershipState, Error> {
    let mut words = reply.words()?;
    Ok(match words.code()? {
        QueuePollCode::Waiting => MembershipState::Waiting,
        QueuePollCode::Active => MembershipState::Active { until: words.int()? },
        QueuePollCode::Expired => MembershipState::Expired,
    })
}

/// `queue/leave`. The answer says whether there was a place or slot to give up.
pub(super) struct LeaveBatch;

impl BatchScript for LeaveBatch {
    type Entity = QueueId;
    type Request = (UserId, u64);
    type Answer = bool;

    fn script(&self) -> &'static LuaScript {
        &scripts::QUEUE_LEAVE
    }

    fn scope<'a>(&self, keys: &KeyBuilder, entity: &'a QueueId) -> KeyScope<'a> {
        KeyScope::queue(keys, entity)
    }

    fn write_args(
        &self,
        _: &QueueId,
        requests: &[(UserId, u64)],
        args: &mut ScriptArgs,
    ) -> Result<(), Error> {
        write_holders(requests, args);
        Ok(())
    }

    fn read_answers(
        &self,
        _: &QueueId,
        _: &[(UserId, u64)],
        mut reply: ReplyReader,
    ) -> Result<Vec<bool>, Error> {
        reply
            .rest()
            .map(|word| Ok(word.code::<QueueLeaveCode>()? == QueueLeaveCode::Left))
            .collect()
    }
}

/// What one look at a line gave.
pub(super) struct SnapshotReading {
    pub(super) snapshot: Snapshot,
    pub(super) cursor: String,
    pub(super) given_up: Vec<u64>,
}

/// `queue/snapshot`. Places given up after `cursor` are told, and how many stand before each of `marks`.
pub(super) async fn snapshot(
    redis: &RedisClient,
    queue: &QueueId,
    cursor: &str,
    marks: &[u64],
) -> Result<SnapshotReading, Error> {
    let mut args = ScriptArgs::new();
    args.text(cursor);
    for mark in marks {
        args.text(&mark.to_string());
    }
    let taken = Instant::now();
    let mut words = redis
        .call(&scripts::QUEUE_SNAPSHOT, KeyScope::queue(redis.keys(), queue), args)
        .await?
        .words()?;
    let line = QueueState {
        now: words.int()?,
        mode: mode(&mut words)?,
        waiting: words.count()?,
        active: words.count()?,
        recent: words.count()?,
        peak: words.count()?,
        sold_out: words.flag()?,
    };
    let admitted = words.count()?;
    let (front, newest) = (u64::try_from(words.int()?).ok(), words.count()?);
    let cursor = words.text()?;
    let given_up = numbers(words.word()?)?;
    let before = numbers(words.word()?)?;
    let marks = marks.iter().copied().zip(before).collect();
    let asks_below = words.count()?;
    Ok(SnapshotReading {
        snapshot: Snapshot { taken, line, admitted, front, newest, marks, asks_below },
        cursor,
        given_up,
    })
}

fn numbers(reply: ScriptReply) -> Result<Vec<u64>, Error> {
    let number = |word: ScriptReply| {
        u64::try_from(word.int()?).map_err(|_| Error::Protocol("a score below zero".into()))
    };
    reply.words()?.rest().map(number).collect()
}

/// `queue/promote`.
pub(super) async fn promote(redis: &RedisClient, queue: &QueueId) -> Result<PromoteOutcome, Error> {
    let mut args = ScriptArgs::new();
    args.text(queue.as_str());
    let place = KeyScope::queue(redis.keys(), queue);
    let mut words = redis.call(&scripts::QUEUE_PROMOTE, place, args).await?.words()?;
    let now = words.int()?;
    mode(&mut words)?;
    let (waiting, active, promoted, no_shows) =
        (words.count()?, words.count()?, words.count()?, words.count()?);
    let (_lapsed, _admitted, version) = (words.count()?, words.count()?, words.count()?);
    let wait_ms = u64::try_from(words.int()?).ok();
    let newest = words.count()?;
    let scores = u64::try_from(words.int()?).ok().zip(u64::try_from(words.int()?).ok());
    Ok(PromoteOutcome {
        waiting,
        active,
        promoted,
        no_shows,
        version,
        wait_ms,
        now,
        newest,
        scores,
    })
}

/// `queue/publish`.
pub(super) async fn configure(
    redis: &RedisClient,
    queue: &QueueId,
    laid: &PublishedQueue,
) -> Result<(), Error> {
    let place = KeyScope::queue(redis.keys(), queue);
    redis.call(&scripts::QUEUE_PUBLISH, place, laid.to_args()).await.map(drop)
}

/// `queue/list_waiting`. Users in line with their scores, from a 0-based position on.
pub(super) async fn members(
    redis: &RedisClient,
    queue: &QueueId,
    first: i64,
    most: i64,
) -> Result<Vec<(UserId, u64)>, Error> {
    let mut args = ScriptArgs::new();
    args.int(first).int(most);
    let words = redis
        .call(&scripts::QUEUE_LIST_WAITING, KeyScope::queue(redis.keys(), queue), args)
        .await?
        .words()?;
    let mut words = words.rest();
    let mut members = Vec::new();
    while let (Some(user), Some(score)) = (words.next(), words.next()) {
        let user = UserId::from_slice(&user.bytes()?)
            .ok_or_else(|| Error::Protocol("wanted a user".into()))?;
        let score = u64::try_from(score.int()?)
            .map_err(|_| Error::Protocol("a score below zero".into()))?;
        members.push((user, score));
    }
    Ok(members)
}
