//! The invariants after a round, whatever faults it had: read from the stores and compared with the
//! responses that users received.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use sqlx::Connection;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::environment::ChaosSite;
use super::workload::{
    COUPON, ConfirmedEffect, INTERVAL_MS, MAX_ACTIVE, PER_INTERVAL, QUEUE, QUOTA, RAFFLE,
    ReportedEffect, WorkloadLog,
};
use crate::faults::histories::{
    self, CallKind, CallResult, RecordedCall, SeatModel, SharedObject, WalletModel,
};
use crate::support::ApiClient;
use crate::support::resp::RespValue;
use crate::support::servers::PARTITIONS;

/// A history with more calls of unknown outcome has too many orders to try. It is skipped and
/// counted.
const MAX_UNKNOWN_CALLS: usize = 5;
/// Time until a new user is admitted. A clock that went back extends the slots of others.
const LIVENESS_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest history that is tried.
const MAX_HISTORY_CALLS: usize = 60;

/// Reads repeatedly, bypassing the relays, whether more users are active than allowed or a user is
/// active and waiting, until `stop` is set.
pub(super) async fn watch(
    site: &ChaosSite<'_>,
    stop: &AtomicBool,
    wrong: &Mutex<Vec<String>>,
) -> usize {
    const SCRIPT: &str = "local t = redis.call('TIME') local now = t[1] * 1000 + math.floor(t[2] \
         / 1000) \
        local inside = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. string.format('%.0f', now), \
        '+inf') \
        for _, user in ipairs(inside) do if redis.call('ZSCORE', KEYS[2], user) then return \
        1000000 end end return #inside";
    let key =
        |name: &str| site.stores.key(site.stores.partition_of(QUEUE), &format!("q:{QUEUE}:{name}"));
    let mut command = String::from("*5\r\n");
    for word in ["EVAL", SCRIPT, "2", &key("active"), &key("waiting")] {
        command.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    let ports =
        site.stores.several.as_ref().map_or(vec![site.stores.redis_port], |it| it.ports.clone());
    let look = async |port: u16| {
        let mut redis = BufReader::new(TcpStream::connect(("127.0.0.1", port)).await.ok()?);
        redis.get_mut().write_all(command.as_bytes()).await.ok()?;
        let mut line = String::new();
        redis.read_line(&mut line).await.ok()?;
        line.strip_prefix(':')?.trim().parse::<i64>().ok()
    };
    let mut looks = 0;
    // With several nodes, those that do not own the key return an error.
    for port in ports.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        if let Ok(Some(active_now)) = timeout(Duration::from_secs(1), look(*port)).await {
            looks += 1;
            match active_now {
                1_000_000 => wrong.lock().unwrap().push("a user was active and waiting".to_owned()),
                more if more > MAX_ACTIVE => {
                    wrong
                        .lock()
                        .unwrap()
                        .push(format!("{more} users were active, of at most {MAX_ACTIVE}"));
                }
                _ => {}
            }
        }
        sleep(Duration::from_millis(25)).await;
    }
    looks
}

/// Confirmed effects that are missing.
pub(super) async fn lost(site: &ChaosSite<'_>, facts: &[ReportedEffect]) -> Vec<ReportedEffect> {
    // All rows at one moment, because a last retry may still run.
    let mut connection = site.stores.mysql.acquire().await.unwrap();
    let snapshot = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ";
    sqlx::query(snapshot).execute(&mut *connection).await.unwrap();
    let mut tx = connection.begin().await.unwrap();
    let mysql = &mut *tx;
    let entries: Vec<(Uuid, Uuid, String, i64)> =
        sqlx::query_as("SELECT id, user_id, kind, amount FROM wallet_entries")
            .fetch_all(&mut *mysql)
            .await
            .unwrap();
    let entries: BTreeMap<Uuid, _> =
        entries.into_iter().map(|row| (row.0, (row.1, row.2, row.3))).collect();
    let payments: Vec<(Uuid, Uuid, Uuid, String)> =
        sqlx::query_as("SELECT id, reservation_id, user_id, status FROM payments")
            .fetch_all(&mut *mysql)
            .await
            .unwrap();
    let payments: BTreeMap<Uuid, _> =
        payments.into_iter().map(|row| (row.0, (row.1, row.2, row.3))).collect();
    let reservations: Vec<(Uuid, String)> =
        sqlx::query_as("SELECT id, status FROM reservations").fetch_all(&mut *mysql).await.unwrap();
    let reservations: BTreeMap<Uuid, String> = reservations.into_iter().collect();
    let issues: Vec<(Uuid, Uuid)> = sqlx::query_as("SELECT id, user_id FROM coupon_issues")
        .fetch_all(&mut *mysql)
        .await
        .unwrap();
    let issues: BTreeMap<Uuid, Uuid> = issues.into_iter().collect();
    let claims: Vec<(Uuid, Uuid)> =
        sqlx::query_as("SELECT id, user_id FROM reward_claims WHERE status = 'success'")
            .fetch_all(&mut *mysql)
            .await
            .unwrap();
    let claims: BTreeMap<Uuid, Uuid> = claims.into_iter().collect();
    let id = |text: &str| text.parse::<Uuid>().unwrap();
    let mut lost = Vec::new();
    for reported in facts {
        let there = match &reported.fact {
            ConfirmedEffect::Entry { id: entry, user, kind, amount } => {
                entries.get(&id(entry)) == Some(&(id(user), (*kind).to_owned(), *amount))
            }
            ConfirmedEffect::Paid { payment, reservation, user } => {
                let row = payments.get(&id(payment));
                let status_now = reservations.get(&id(reservation)).map(String::as_str);
                row.is_some_and(|row| row.0 == id(reservation) && row.1 == id(user))
                    && match row.map(|row| row.2.as_str()) {
                        Some("confirmed") => status_now == Some("confirmed"),
                        // A cancellation with a lost response counts as well.
                        Some("refunded") => status_now == Some("cancelled"),
                        _ => false,
                    }
            }
            ConfirmedEffect::Cancelled { reservation } => {
                reservations.get(&id(reservation)).is_some_and(|status| status == "cancelled")
            }
            ConfirmedEffect::Issue { id: issue, user } => issues.get(&id(issue)) == Some(&id(user)),
            ConfirmedEffect::Claim { id: claim, user } => claims.get(&id(claim)) == Some(&id(user)),
        };
        if !there {
            lost.push(reported.clone());
        }
    }
    lost
}

/// Seats that two users had at one moment: the second user's hold was confirmed before the first
/// user's could have ended, and while it was valid by the clock of Redis. Only holds that were
/// requested after `since`, the last loss, if there was one.
pub(super) fn shared_seats(log: &WorkloadLog, since: Option<Instant>) -> Vec<String> {
    let stays = log.stays.lock().unwrap();
    let stays: Vec<_> =
        stays.iter().filter(|stay| since.is_none_or(|since| stay.asked >= since)).collect();
    let mut wrong = Vec::new();
    for (at, one) in stays.iter().enumerate() {
        for other in &stays[..at] {
            let (first, second) = if one.from < other.from { (one, other) } else { (other, one) };
            if (first.schedule, first.seat) == (second.schedule, second.seat)
                && first.reservation != second.reservation
                && second.from < first.until
                && first.left.is_none_or(|left| second.heard < left)
            {
                wrong.push(format!("two users had one seat: {first:?} and {second:?}"));
            }
        }
    }
    wrong
}

/// Histories that no order explains, and the number of histories with too many unknown outcomes.
/// Only calls that `count`. With `since`, the last loss, only calls that were not answered before
/// it; the state after the loss is unknown.
pub(super) fn histories(
    log: &WorkloadLog,
    since: Option<Instant>,
    count: impl Fn(&RecordedCall) -> bool,
) -> (Vec<String>, usize) {
    let (mut wrong, mut left_out) = (Vec::new(), 0);
    for (thing, calls) in log.calls.lock().unwrap().iter() {
        let calls = calls.iter().filter(|(_, call)| count(call)).cloned();
        let calls: Vec<_> = match since {
            Some(since) => calls.filter_map(|call| after_loss(call, since)).collect(),
            None => calls.collect(),
        };
        let unknown = calls.iter().filter(|(_, call)| call.end.is_none()).count();
        if unknown > MAX_UNKNOWN_CALLS || calls.len() > MAX_HISTORY_CALLS {
            left_out += 1;
            continue;
        }
        let is_sound = match since {
            Some(_) => {
                starts_after_loss(*thing, &calls).into_iter().any(|start| start.allows(&calls))
            }
            None => initial_state(*thing).allows(&calls),
        };
        if !is_sound {
            wrong.push(format!("no order of these calls makes {thing:?}: {calls:#?}"));
        }
    }
    (wrong, left_out)
}

/// A call that may have had its effect after a loss. One that began before it and had no answer by
/// then has an unknown outcome: its effect may have been lost.
fn after_loss(
    (caller, mut call): (usize, RecordedCall),
    since: Instant,
) -> Option<(usize, RecordedCall)> {
    if call.began < since {
        if call.end.as_ref().is_some_and(|(end, _)| *end < since) {
            return None;
        }
        call.end = None;
    }
    Some((caller, call))
}

/// A state from which a history starts.
enum InitialState {
    Seat(SeatModel),
    Wallet(WalletModel),
}

impl InitialState {
    fn allows(self, calls: &[(usize, RecordedCall)]) -> bool {
        match self {
            Self::Seat(seat) => histories::check(seat, calls),
            Self::Wallet(wallet) => histories::check(wallet, calls),
        }
    }
}

/// The state at the start of a round.
fn initial_state(thing: SharedObject) -> InitialState {
    match thing {
        SharedObject::Seat(_) => InitialState::Seat(SeatModel::Free),
        SharedObject::Wallet(_) => InitialState::Wallet(WalletModel(0)),
    }
}

/// The states that a loss may leave: any owner of a seat; for a wallet every balance from which one
/// of the calls could be the first.
fn starts_after_loss(thing: SharedObject, calls: &[(usize, RecordedCall)]) -> Vec<InitialState> {
    match thing {
        SharedObject::Seat(_) => {
            // The last one stands for an owner who makes no further call.
            let owners = calls.iter().map(|(caller, _)| *caller).chain([usize::MAX]);
            let taken = owners.flat_map(|owner| [SeatModel::Held(owner), SeatModel::Sold(owner)]);
            [SeatModel::Free].into_iter().chain(taken).map(InitialState::Seat).collect()
        }
        SharedObject::Wallet(_) => {
            let before = |call: &RecordedCall| match (&call.op, &call.end) {
                (CallKind::Add(amount), Some((_, CallResult::Balance(after)))) => {
                    Some(after - amount)
                }
                (CallKind::Take(amount), Some((_, CallResult::Balance(after)))) => {
                    Some(after + amount)
                }
                (CallKind::Read, Some((_, CallResult::Balance(after)))) => Some(*after),
                _ => None,
            };
            let known = calls.iter().filter_map(|(_, call)| before(call));
            // Refusals alone are explained by an empty wallet. Calls of unknown outcome may have
            // had their effect after a refusal and before the first known balance.
            let mut starts: BTreeSet<i64> = known.chain([0]).collect();
            for (_, call) in calls.iter().filter(|(_, call)| call.end.is_none()) {
                let effect = match call.op {
                    CallKind::Add(amount) => amount,
                    CallKind::Take(amount) => -amount,
                    _ => continue,
                };
                starts.extend(starts.clone().into_iter().map(|balance| balance - effect));
            }
            starts.retain(|balance| *balance >= 0);
            starts.into_iter().map(|balance| InitialState::Wallet(WalletModel(balance))).collect()
        }
    }
}

/// The rate of admissions, their order, and the quota of the coupon.
pub(super) async fn limits(
    site: &ChaosSite<'_>,
    in_order: bool,
    clock_is_steady: bool,
) -> Vec<String> {
    let mut wrong = Vec::new();
    let promotions: Vec<(i64, i64, u32, DateTime<Utc>)> = sqlx::query_as(
        "SELECT from_score, to_score, count, promoted_at FROM promotions WHERE queue_id = ? ORDER \
             BY partition_id, n, idx",
    )
    .bind(QUEUE)
    .fetch_all(&site.stores.mysql)
    .await
    .unwrap();
    let mut last = -1;
    for (at, (from, to, _, when)) in promotions.iter().enumerate() {
        if in_order && *from <= last {
            wrong.push(format!("{from} was admitted after {last}"));
        }
        last = *to;
        let since = when.timestamp_millis() - INTERVAL_MS;
        let within =
            promotions[..=at].iter().rev().take_while(|it| it.3.timestamp_millis() > since);
        let many: i64 = within.map(|it| i64::from(it.2)).sum();
        if clock_is_steady && many > PER_INTERVAL {
            wrong.push(format!(
                "{many} users were admitted within {INTERVAL_MS} ms, of at most {PER_INTERVAL}"
            ));
        }
    }
    let at = site.stores.partition_of(COUPON);
    let issued = match site
        .stores
        .redis()
        .await
        .ask(&["HLEN", &site.stores.key(at, &format!("c:{COUPON}:issues"))])
        .await
    {
        RespValue::Int(issued) => usize::try_from(issued).unwrap(),
        other => panic!("{other:?}"),
    };
    let rows =
        usize::try_from(site.stores.count("SELECT COUNT(*) FROM coupon_issues").await).unwrap();
    if issued.max(rows) > QUOTA {
        wrong.push(format!("{issued} issues in Redis and {rows} in MySQL, of at most {QUOTA}"));
    }
    wrong
}

#[test]
fn histories_are_checked_from_the_last_loss_on() {
    let began = Instant::now();
    let at = |ms| began + Duration::from_millis(ms);
    let call = |caller, op, from, until, ret| {
        let thing = SharedObject::Seat(1);
        (caller, RecordedCall { thing, op, began: at(from), end: Some((at(until), ret)) })
    };
    let lost = call(1, CallKind::Hold(1), 0, 10, CallResult::Done);
    let again = call(2, CallKind::Hold(2), 60, 70, CallResult::Done);
    let twice = call(3, CallKind::Hold(3), 80, 90, CallResult::Done);
    let found = |calls: Vec<(usize, RecordedCall)>, since| {
        let log = WorkloadLog::default();
        log.calls.lock().unwrap().insert(SharedObject::Seat(1), calls);
        histories(&log, since, |_| true).0.len()
    };
    assert_eq!(found(vec![lost.clone(), again.clone()], None), 1);
    assert_eq!(found(vec![lost.clone(), again.clone()], Some(at(50))), 0);
    assert_eq!(found(vec![lost, again, twice], Some(at(50))), 1);
}

/// The draws were fair and admitted users in order, judged by `usher audit queue`.
pub(super) async fn draws(site: &ChaosSite<'_>) -> Vec<String> {
    let [redis, mysql] = [&site.stores.redis_url(), &site.stores.mysql_url];
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_usher"))
        .args(["audit", "queue", RAFFLE, "--redis-url", redis, "--mysql-url", mysql])
        .args(["--partitions", &PARTITIONS.to_string(), "--key-prefix", &site.stores.prefix])
        .output()
        .await
        .unwrap();
    let fair = output.status.success();
    if fair { Vec::new() } else { vec![format!("the draws: {output:?}")] }
}

/// A new user is admitted: no slot of a user who is gone stays taken.
pub(super) async fn liveness(site: &ChaosSite<'_>) -> Option<String> {
    let address = site.seats[0].address.read().unwrap().clone();
    let api = ApiClient::new(vec![address]);
    for queue in [QUEUE, RAFFLE] {
        let user = api.join_new_user(queue).await;
        let admitted = async {
            loop {
                let ticket = api.poll(queue, &user.token).await;
                if ticket.status != 200 || ticket.body["status"] == "active" {
                    return ticket;
                }
                sleep(Duration::from_millis(100)).await;
            }
        };
        match timeout(LIVENESS_TIMEOUT, admitted).await {
            Ok(ticket) if ticket.status == 200 => {}
            other => return Some(format!("a new user of {queue} is not admitted: {other:?}")),
        }
    }
    None
}
