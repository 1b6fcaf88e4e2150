//! Calls of the scripts in `lua/queue/`, one function or batch for each.

use std::sync::OnceLock;
use std::time::Instant;

use crate::ids::{QueueId, UserId};
use crate::redis::codes::{QueueJoinCode, QueueLeaveCode, QueuePollCode};
use crate::redis::{
    BatchScript, Error, KeyBuilder, KeyScope, LuaScript, RedisClient, ReplyReader, ScriptArgs,
    ScriptReply, scripts,
};

use super::settings::{PublishedQueue, QueueMode};
use super::snapshot::{QueueState, Snapshot};
use super::turnover_reading::read_turnover;
use crate::telemetry::Metric;

/// Whether Redis has a user as waiting or active.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MembershipState {
    Waiting,
    /// `until` in milliseconds since 1970.
    Active {
        until: i64,
    },
    Expired,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JoinOutcome {
    /// The user has a place or a slot. `is_new` when this call created it.
    Placed {
        score: u64,
        membership: MembershipState,
        is_new: bool,
    },
    Closed,
    Full,
}

/// The queue after a call of `queue/join`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LineAfterJoin {
    /// The lowest waiting score.
    pub(super) front: Option<u64>,
    /// The number of waiting users.
    pub(super) waiting: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PromoteOutcome {
    pub(super) waiting: u64,
    pub(super) active: u64,
    pub(super) promoted: u64,
    pub(super) no_shows: u64,
    /// Waiting users who lost their places because no instance heard of them.
    pub(super) abandoned: u64,
    /// The version of the published settings.
    pub(super) version: u64,
    /// Milliseconds until another call can admit users. `None` when unknown.
    pub(super) wait_ms: Option<u64>,
    /// Redis' clock, in milliseconds since 1970.
    pub(super) now: i64,
    /// The last score given to an arrival.
    pub(super) newest: u64,
    /// The lowest and the highest admitted score.
    pub(super) scores: Option<(u64, u64)>,
}

fn mode(reply: &mut ReplyReader) -> Result<QueueMode, Error> {
    let word = reply.text()?;
    QueueMode::from_word(&word).ok_or_else(|| Error::Protocol(format!("unknown mode {word}")))
}

/// `queue/join`.
pub(super) struct JoinBatch;

impl BatchScript for JoinBatch {
    type Entity = QueueId;
    type Request = UserId;
    type Answer = (LineAfterJoin, JoinOutcome);

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
    ) -> Result<Vec<(LineAfterJoin, JoinOutcome)>, Error> {
        let _now = reply.int()?;
        let line =
            LineAfterJoin { front: u64::try_from(reply.int()?).ok(), waiting: reply.count()? };
        let words = numbers(reply.word()?)?;
        let mut slot_ends = reply.word()?.words()?;
        let answers: Vec<Self::Answer> = words
            .into_iter()
            .map(|word| Ok((line, join_outcome(word, &mut slot_ends)?)))
            .collect::<Result<_, Error>>()?;
        count_admitted(entity, &answers);
        Ok(answers)
    }
}

/// Counts users who were admitted without waiting.
fn count_admitted(queue: &QueueId, answers: &[(LineAfterJoin, JoinOutcome)]) {
    let is_admitted = |joined: &JoinOutcome| {
        matches!(
            joined,
            JoinOutcome::Placed { membership: MembershipState::Active { .. }, is_new: true, .. }
        )
    };
    let admitted = answers.iter().filter(|(_, joined)| is_admitted(joined)).count();
    if admitted > 0 {
        let labels = [("queue", queue.as_str())];
        Metric::QueueAdmittedTotal.counter(&labels).increment(admitted as u64);
        Metric::QueueWaitSeconds.histogram(&labels).record_many(0.0, admitted);
    }
}

/// Decodes 8 × score + code. `slot_ends` has the ends of the slots of all active users, in the
/// order of the reply.
fn join_outcome(word: u64, slot_ends: &mut ReplyReader) -> Result<JoinOutcome, Error> {
    let (score, code) = (word >> 3, (word & 7) as i64);
    let code: QueueJoinCode = ScriptReply::Int(code).code()?;
    let membership = match code {
        QueueJoinCode::Joined | QueueJoinCode::Waiting => MembershipState::Waiting,
        QueueJoinCode::Admitted | QueueJoinCode::Active => {
            MembershipState::Active { until: slot_ends.int()? }
        }
        QueueJoinCode::Closed => return Ok(JoinOutcome::Closed),
        QueueJoinCode::Full => return Ok(JoinOutcome::Full),
    };
    let is_new = matches!(code, QueueJoinCode::Joined | QueueJoinCode::Admitted);
    Ok(JoinOutcome::Placed { score, membership, is_new })
}

/// `uses_visit`: whether the request extends a sliding visit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PollRequest {
    pub(super) user: UserId,
    pub(super) score: u64,
    pub(super) uses_visit: bool,
}

/// `queue/poll`.
pub(super) struct PollBatch;

impl BatchScript for PollBatch {
    type Entity = QueueId;
    type Request = PollRequest;
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
        requests: &[PollRequest],
        args: &mut ScriptArgs,
    ) -> Result<(), Error> {
        for request in requests {
            args.bytes(request.user.as_bytes()).text(&request.score.to_string());
            args.int(request.uses_visit.into());
        }
        Ok(())
    }

    fn read_answers(
        &self,
        _: &QueueId,
        _: &[PollRequest],
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
    let mut reply = reply.words()?;
    Ok(match reply.code()? {
        QueuePollCode::Waiting => MembershipState::Waiting,
        QueuePollCode::Active => MembershipState::Active { until: reply.int()? },
        QueuePollCode::Expired => MembershipState::Expired,
    })
}

/// `queue/leave`. The answer is true when the user had a place or a slot.
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
        reply: ReplyReader,
    ) -> Result<Vec<bool>, Error> {
        reply
            .rest()
            .map(|word| Ok(word.code::<QueueLeaveCode>()? == QueueLeaveCode::Left))
            .collect()
    }
}

pub(super) struct SnapshotReading {
    pub(super) snapshot: Snapshot,
    /// The stream id for the next call.
    pub(super) cursor: String,
    pub(super) vacated: Vec<u64>,
}

/// `queue/snapshot`. Returns the scores vacated after `cursor` and the number of users who wait
/// below each of `markers`.
pub(super) async fn snapshot(
    redis: &RedisClient,
    queue: &QueueId,
    cursor: &str,
    markers: &[u64],
) -> Result<SnapshotReading, Error> {
    let mut args = ScriptArgs::new();
    args.text(cursor);
    for marker in markers {
        args.text(&marker.to_string());
    }
    // Before the call, so that the age of the snapshot is never underestimated.
    let taken_at = Instant::now();
    let mut reply = redis
        .call(&scripts::QUEUE_SNAPSHOT, KeyScope::queue(redis.keys(), queue), args)
        .await?
        .words()?;
    let mut state = QueueState {
        now: reply.int()?,
        mode: mode(&mut reply)?,
        waiting: reply.count()?,
        active: reply.count()?,
        sold_out: reply.flag()?,
        before_opening: false,
        lottery: false,
        restoring: false,
    };
    let admitted_total = reply.count()?;
    let (front, newest) = (u64::try_from(reply.int()?).ok(), reply.count()?);
    let cursor = reply.text()?;
    let vacated = numbers(reply.word()?)?;
    let ranks = numbers(reply.word()?)?;
    let rank_markers = markers.iter().copied().zip(ranks).collect();
    let restore_below = reply.count()?;
    state.before_opening = reply.flag()?;
    state.lottery = reply.flag()?;
    let restoring_until = reply.int()?;
    state.restoring = restoring_until > state.now;
    let turnover = read_turnover(&mut reply, &state, restoring_until)?;
    Ok(SnapshotReading {
        snapshot: Snapshot {
            taken_at,
            state,
            admitted_total,
            front,
            newest,
            rank_markers,
            markers_at: 0,
            restore_below,
            turnover,
            forecast: OnceLock::new(),
        },
        cursor,
        vacated,
    })
}

fn numbers(reply: ScriptReply) -> Result<Vec<u64>, Error> {
    let number = |word: ScriptReply| {
        u64::try_from(word.int()?).map_err(|_| Error::Protocol("negative score".into()))
    };
    reply.words()?.rest().map(number).collect()
}

/// `queue/promote`.
pub(super) async fn promote(redis: &RedisClient, queue: &QueueId) -> Result<PromoteOutcome, Error> {
    let mut args = ScriptArgs::new();
    args.text(queue.as_str());
    let scope = KeyScope::queue(redis.keys(), queue);
    let mut reply = redis.call(&scripts::QUEUE_PROMOTE, scope, args).await?.words()?;
    let now = reply.int()?;
    mode(&mut reply)?;
    let (waiting, active, promoted, no_shows) =
        (reply.count()?, reply.count()?, reply.count()?, reply.count()?);
    let (_lapsed, _admitted, version) = (reply.count()?, reply.count()?, reply.count()?);
    let wait_ms = u64::try_from(reply.int()?).ok();
    let newest = reply.count()?;
    let scores = u64::try_from(reply.int()?).ok().zip(u64::try_from(reply.int()?).ok());
    let abandoned = reply.count()?;
    Ok(PromoteOutcome {
        waiting,
        active,
        promoted,
        no_shows,
        abandoned,
        version,
        wait_ms,
        now,
        newest,
        scores,
    })
}

/// `queue/publish`.
pub(super) async fn publish(
    redis: &RedisClient,
    queue: &QueueId,
    queue_settings: &PublishedQueue,
) -> Result<(), Error> {
    let scope = KeyScope::queue(redis.keys(), queue);
    redis.call(&scripts::QUEUE_PUBLISH, scope, queue_settings.to_args(queue)).await.map(drop)
}

pub(super) fn user_id(word: ScriptReply) -> Result<UserId, Error> {
    UserId::from_slice(&word.bytes()?).ok_or_else(|| Error::Protocol("expected a user id".into()))
}

/// `queue/list_waiting`. At most `limit` waiting users with their scores, from the 0-based rank
/// `first` on.
pub(super) async fn list_waiting(
    redis: &RedisClient,
    queue: &QueueId,
    first: i64,
    limit: i64,
) -> Result<Vec<(UserId, u64)>, Error> {
    let mut args = ScriptArgs::new();
    args.int(first).int(limit);
    let reply = redis
        .call(&scripts::QUEUE_LIST_WAITING, KeyScope::queue(redis.keys(), queue), args)
        .await?
        .words()?;
    let mut reply = reply.rest();
    let mut members = Vec::new();
    while let (Some(user), Some(score)) = (reply.next(), reply.next()) {
        let user = user_id(user)?;
        let score =
            u64::try_from(score.int()?).map_err(|_| Error::Protocol("negative score".into()))?;
        members.push((user, score));
    }
    Ok(members)
}
