//! One process of a crowd. It reads its plan, says when it is ready, begins at a word, tells four times a second how far it is, and at the
//! end everything that its users saw. It ends when its standard input does, so that it can't outlive the one who started it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::{JoinSet, LocalSet};

use super::client::Client;
use super::measure::{Packed, Step};
use super::plan::{Kind, Plan};
use super::seen::Seen;
use super::users::{self, Waiter};
use crate::{Failure, print};

/// The pause between two words about how far things are.
const TELL: Duration = Duration::from_millis(250);

/// What a process says, a line each.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Word {
    /// Its connections stand and those who wait are in line.
    Ready,
    /// How far it is.
    Progress(Progress),
    /// All of it.
    Result(Outcome),
}

/// How far a process is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress {
    pub(super) came: u64,
    pub(super) done: u64,
    pub(super) admitted: u64,
    pub(super) won: u64,
}

/// What a process measured and its users saw.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Outcome {
    pub(super) steps: BTreeMap<Step, Packed>,
    pub(super) seen: Vec<Seen>,
}

/// Runs one process' share.
pub(crate) async fn run() -> Result<(), Failure> {
    let mut input = orders();
    let plan = input.recv().await.ok_or("there is no plan")?;
    let plan: Rc<Plan> = Rc::new(serde_json::from_str(&plan)?);
    let local = LocalSet::new();
    let work = local.run_until(async {
        let client = Rc::new(Client::open(plan.address, plan.connections).await?);
        let waiters = wait_in_line(&client, &plan).await?;
        say(&Word::Ready)?;
        input.recv().await.ok_or("nobody gave the word")?;
        let start = client.begin();
        let work = crowd(&client, &plan, &waiters, start);
        tokio::select! {
            () = work => {}
            told = tell(&client) => told?,
            // Whoever waits for the result has gone.
            _ = input.recv() => return Err("nobody listens any more".into()),
        }
        say(&Word::Progress(progress(&client)))?;
        let mut seen = std::mem::take(&mut *client.seen.borrow_mut());
        seen.extend(waiters.iter().filter_map(|waiter| waiter.seen()));
        let steps = client.latencies.borrow().iter().map(|(step, series)| (*step, series.pack())).collect();
        say(&Word::Result(Outcome { steps, seen }))
    });
    work.await
}

/// The lines of standard input, up to its end.
fn orders() -> mpsc::Receiver<String> {
    let (tell, told) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if tell.blocking_send(line).is_err() {
                return;
            }
        }
    });
    told
}

/// Lets everybody come when they are due, and waits until the last is done.
async fn crowd(client: &Rc<Client>, plan: &Rc<Plan>, waiters: &[Rc<Waiter>], start: Instant) {
    let mut under_way = JoinSet::new();
    for (n, after) in plan.schedule().arrivals() {
        let due = start + after;
        tokio::time::sleep_until(due.into()).await;
        let (client, plan) = (client.clone(), plan.clone());
        match plan.kind {
            Kind::Journeys => {
                drop(under_way.spawn_local(async move { users::journey(&client, &plan, n, due).await }))
            }
            Kind::Coupons => {
                drop(under_way.spawn_local(async move { users::rush(&client, &plan, n, due).await }))
            }
            Kind::Polls => {
                let turn = usize::try_from(n / plan.process.1).unwrap_or(0) % waiters.len().max(1);
                let Some(waiter) = waiters.get(turn).cloned() else { return };
                under_way.spawn_local(async move { waiter.poll(&client, &plan, due).await });
            }
        }
        // Tasks that are done must not pile up in a long run.
        while under_way.try_join_next().is_some() {}
    }
    while under_way.join_next().await.is_some() {}
}

/// Those who poll get in line first, as quickly as the connections allow.
async fn wait_in_line(client: &Rc<Client>, plan: &Rc<Plan>) -> Result<Vec<Rc<Waiter>>, Failure> {
    if plan.kind != Kind::Polls {
        return Ok(Vec::new());
    }
    let (first, of) = plan.process;
    let step = usize::try_from(of)?;
    let next = Rc::new(RefCell::new((first..plan.users).step_by(step)));
    let mut doors = JoinSet::new();
    for _ in 0..plan.connections {
        let (client, plan, next) = (client.clone(), plan.clone(), next.clone());
        doors.spawn_local(async move {
            let mut in_line = Vec::new();
            loop {
                let Some(n) = next.borrow_mut().next() else { return Some(in_line) };
                in_line.push(Rc::new(Waiter::join(&client, &plan, n).await?));
            }
        });
    }
    let mut waiters = Vec::new();
    while let Some(door) = doors.join_next().await {
        waiters.extend(door?.ok_or("someone could not get in line")?);
    }
    Ok(waiters)
}

async fn tell(client: &Client) -> Result<(), Failure> {
    loop {
        tokio::time::sleep(TELL).await;
        say(&Word::Progress(progress(client)))?;
    }
}

fn progress(client: &Client) -> Progress {
    let counts = &client.counts;
    Progress {
        came: counts.came.get(),
        done: counts.done.get(),
        admitted: counts.admitted.get(),
        won: counts.won.get(),
    }
}

fn say(word: &Word) -> Result<(), Failure> {
    print(&format!("{}\n", serde_json::to_string(word)?))
}
