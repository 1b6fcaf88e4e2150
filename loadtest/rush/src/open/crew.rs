//! The processes that make a crowd: started, set off together, listened to, put together.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Instant;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::bar::Bar;
use super::measure::{Series, Step};
use super::plan::Plan;
use super::seen::Seen;
use super::worker::{Outcome, Progress, Word};
use crate::{Failure, progress};

/// Words that may wait to be read.
const WORDS: usize = 64;

/// What all processes together measured and saw.
pub(super) struct Run {
    pub(super) seconds: f64,
    pub(super) steps: BTreeMap<Step, Series>,
    pub(super) seen: Vec<Seen>,
}

/// Who said a line; none is the end of all that they say.
type Said = (usize, Option<String>);

/// One process.
struct Hand {
    // Killed when this is dropped.
    _child: Child,
    orders: ChildStdin,
}

impl Hand {
    async fn hire(at: usize, plan: &Plan, words: Sender<Said>) -> Result<Self, Failure> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("worker")
            .kill_on_drop(true)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (orders, output) =
            child.stdin.take().zip(child.stdout.take()).ok_or("a process without pipes")?;
        tokio::spawn(async move {
            let mut lines = BufReader::new(output).lines();
            loop {
                let line = lines.next_line().await.unwrap_or_default();
                let over = line.is_none();
                if words.send((at, line)).await.is_err() || over {
                    return;
                }
            }
        });
        let mut hand = Self { _child: child, orders };
        hand.order(&serde_json::to_string(plan)?).await?;
        Ok(hand)
    }

    async fn order(&mut self, line: &str) -> Result<(), Failure> {
        Ok(self.orders.write_all(format!("{line}\n").as_bytes()).await?)
    }
}

/// The next word of a process that has not said all yet.
async fn word(words: &mut Receiver<Said>, done: &[bool]) -> Result<(usize, Word), Failure> {
    loop {
        match words.recv().await {
            Some((at, Some(line))) => return Ok((at, serde_json::from_str(&line)?)),
            Some((at, None)) if done[at] => {}
            _ => return Err("a process of the crowd ended early".into()),
        }
    }
}

/// Runs a process for each plan; `goal` is what all of them have done at the end.
pub(super) async fn run(plans: &[Plan], goal: u64) -> Result<Run, Failure> {
    progress("the crowd gathers");
    let (tell, mut words) = channel(WORDS);
    let mut hands = Vec::new();
    for (at, plan) in plans.iter().enumerate() {
        hands.push(Hand::hire(at, plan, tell.clone()).await?);
    }
    let mut done = vec![false; plans.len()];
    for _ in plans {
        let (_, Word::Ready) = word(&mut words, &done).await? else {
            return Err("a process is not ready".into());
        };
    }
    let started = Instant::now();
    for hand in &mut hands {
        hand.order("go").await?;
    }
    let mut bar = Bar::new(goal);
    let mut each = vec![Progress::default(); plans.len()];
    let mut run = Run { seconds: 0.0, steps: BTreeMap::new(), seen: Vec::new() };
    while done.contains(&false) {
        match word(&mut words, &done).await? {
            (at, Word::Progress(now)) => {
                each[at] = now;
                bar.show(&each, started.elapsed());
            }
            (at, Word::Result(Outcome { steps, seen })) => {
                done[at] = true;
                run.seconds = started.elapsed().as_secs_f64();
                run.seen.extend(seen);
                steps.iter().for_each(|(step, packed)| run.steps.entry(*step).or_default().add(packed));
            }
            (_, Word::Ready) => {}
        }
    }
    bar.end();
    Ok(run)
}
