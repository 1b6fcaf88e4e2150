//! The table of hot paths: each scenario between two runs of the no-op, so that a machine that drifts shows itself.

use std::rc::Rc;
use std::time::Duration;

use crate::crowd::{self, Outcome};
use crate::meter::Reading;
use crate::redis::Redis;
use crate::scenario::{People, Scenario, Stock};
use crate::stack::Stack;
use crate::table::{Table, figure};
use crate::{Failure, machine, prepare, print, progress};

/// People who wait while others poll.
const WAITING: usize = 10_000;
/// Holds that are prepared for each second of measuring; the hall is full after [`prepare::MOST_SEATS`].
const HOLDS_A_SECOND: f64 = 25_000.0;
/// The coupons of the sold-out scenario.
const FEW: usize = 100;
/// How long the no-op before and after each scenario runs, at most.
const NO_OP: Duration = Duration::from_millis(1_000);

/// All scenarios, in the order of the table.
const ALL: [&str; 9] =
    ["bare", "poll", "state", "join", "hold", "charge", "purchase", "issue-open", "issue-sold-out"];

const READING: &str = "\n`no-op` is `GET /healthz` of the service: an axum route that does nothing behind the layers that every answer passes \
(request id, metrics, panics, timeout, cache header). `bare` is the same on axum alone, in a process of its own. `× no-op` compares \
with the mean of the no-op runs right before and right after, which the next column shows. A purchase is five requests: join, poll, hold, charge, pay. \
CPU is user and system time from /proc/<pid>/stat, in µs a unit, read once the outbox is in MySQL; `CPU × no-op` is service + Redis + MySQL \
over the service's time for one no-op. Commands are those of Redis' own count, with those that scripts make. Latencies are those of a saturated service.\n";

/// Runs the bench and prints its table.
pub(crate) async fn run(
    connections: &[usize],
    time: Duration,
    only: &[String],
    usher: Option<std::path::PathBuf>,
) -> Result<(), Failure> {
    if let Some(unknown) = only.iter().find(|name| !ALL.contains(&name.as_str())) {
        return Err(format!("there is no scenario {unknown}; there are {}", ALL.join(", ")).into());
    }
    if connections.iter().any(|count| !(1..=10_000).contains(count)) {
        return Err("--connections must be from 1 to 10000 each".into());
    }
    let stack = Stack::start(usher).await?;
    let measured = measure(&stack, connections, time, only).await;
    stack.stop().await?;
    measured
}

async fn measure(
    stack: &Stack,
    connections: &[usize],
    time: Duration,
    only: &[String],
) -> Result<(), Failure> {
    let mut bench = Bench { stack, redis: Redis::open(stack.redis_port())?, time, notes: Vec::new() };
    print(&format!("{}\n", machine::describe()))?;
    for &count in connections {
        let mut table = Table::new(&[
            "scenario",
            "units/s",
            "× no-op",
            "no-op/s",
            "p50 ms",
            "p99 ms",
            "failed",
            "CPU µs service",
            "Redis",
            "MySQL",
            "generator",
            "CPU × no-op",
            "scripts",
            "commands",
            "drain s",
        ]);
        let outcome = bench.rows(&mut table, only, count).await;
        // What was measured before a failure is still worth reading.
        print(&format!("\n{count} connections, {:.1} s each:\n\n{}", time.as_secs_f64(), table.render()))?;
        outcome?;
    }
    print(READING)?;
    bench.notes.dedup();
    bench.notes.iter().try_for_each(|note| print(&format!("\n- {note}")))?;
    print("\n")
}

struct Bench<'a> {
    stack: &'a Stack,
    redis: Redis,
    time: Duration,
    notes: Vec<String>,
}

/// What one run took.
struct Run {
    outcome: Outcome,
    used: Reading,
    drain: Duration,
}

impl Run {
    /// Microseconds of something, or a count, for each unit that ended well.
    fn each(&self, sum: u64) -> f64 {
        sum as f64 / self.outcome.succeeded() as f64
    }
}

impl Bench<'_> {
    async fn rows(&mut self, table: &mut Table, only: &[String], count: usize) -> Result<(), Failure> {
        for name in ALL.iter().filter(|name| only.is_empty() || only.iter().any(|wanted| wanted == *name)) {
            progress(&format!("{name} on {count} connections"));
            if let Some(scenario) = self.prepare(name, count).await? {
                self.row(table, name, Rc::new(scenario), count).await?;
            }
        }
        Ok(())
    }

    async fn prepare(&mut self, name: &str, count: usize) -> Result<Option<Scenario>, Failure> {
        let queue = format!("{name}-{count}");
        let (stack, people) = (self.stack, People::new());
        Ok(Some(match name {
            "bare" => Scenario::Get("/noop".to_owned()),
            "poll" => {
                prepare::paused_queue(stack, &queue).await?;
                let tokens = Stock::new(prepare::joined(stack, &queue, WAITING).await?);
                Scenario::Poll { path: format!("/v1/queues/{queue}/tokens/me"), tokens }
            }
            "state" => {
                prepare::paused_queue(stack, &queue).await?;
                Scenario::Get(format!("/v1/queues/{queue}"))
            }
            "join" => {
                prepare::paused_queue(stack, &queue).await?;
                Scenario::Join { path: format!("/v1/queues/{queue}/tokens"), people }
            }
            "hold" => {
                let schedule = prepare::hall(stack, &queue).await?;
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a bounded number above zero"
                )]
                let holders = ((self.time.as_secs_f64() * HOLDS_A_SECOND) as usize).min(prepare::MOST_SEATS);
                let tokens = Stock::new(prepare::joined(stack, &queue, holders).await?);
                Scenario::Hold { schedule, tokens }
            }
            "charge" => Scenario::Charge { people },
            "purchase" => {
                let schedule = prepare::hall(stack, &queue).await?;
                let seats = Stock::new(vec![(); prepare::MOST_SEATS]);
                Scenario::Purchase { queue, schedule, seats, people }
            }
            _ => return self.coupon(name, &queue, people).await,
        }))
    }

    async fn coupon(
        &mut self,
        name: &str,
        coupon: &str,
        people: People,
    ) -> Result<Option<Scenario>, Failure> {
        let sold_out = name == "issue-sold-out";
        let quota = if sold_out { FEW as u64 } else { 1_000_000_000 };
        if let Err(reason) = prepare::coupon(self.stack, coupon, quota).await? {
            progress(&format!("skipping {name}: {reason}"));
            self.notes.push(format!("coupons are not measured: {reason}."));
            return Ok(None);
        }
        if sold_out {
            prepare::issued(self.stack, coupon, FEW).await?;
        }
        let status = if sold_out { 409 } else { 201 };
        Ok(Some(Scenario::Issue { path: format!("/v1/coupons/{coupon}/issues"), people, status }))
    }

    /// Measures one scenario between two no-ops.
    async fn row(
        &mut self,
        table: &mut Table,
        name: &str,
        scenario: Rc<Scenario>,
        count: usize,
    ) -> Result<(), Failure> {
        let address = if name == "bare" { self.stack.bare_address } else { self.stack.public };
        let no_op = Rc::new(Scenario::Get("/healthz".to_owned()));
        let no_op_time = self.time.min(NO_OP);
        self.stack.drained(&mut self.redis).await?;
        let before = self.run(&no_op, self.stack.public, count, no_op_time).await?;
        let run = self.run(&scenario, address, count, self.time).await?;
        let after = self.run(&no_op, self.stack.public, count, no_op_time).await?;
        if run.outcome.exhausted {
            let took = run.outcome.elapsed.as_secs_f64();
            self.notes
                .push(format!("{name} at {count} connections used up what was prepared after {took:.1} s."));
        }
        let rates = (before.outcome.rate(), after.outcome.rate());
        let no_op_cpu = (before.each(before.used.cpu.service) + after.each(after.used.cpu.service)) / 2.0;
        let cpu = &run.used.cpu;
        let ms = |quantile| figure(run.outcome.latency.value_at_quantile(quantile) as f64 / 1e6);
        let failed: Vec<_> =
            run.outcome.failures.iter().map(|(status, count)| format!("{count}×{status}")).collect();
        // The bare server is not among the processes that are watched, and what they did meanwhile is not its work.
        let ours = |shown: String| if name == "bare" { "–".to_owned() } else { shown };
        table.row(vec![
            name.to_owned(),
            figure(run.outcome.rate()),
            figure(run.outcome.rate() / ((rates.0 + rates.1) / 2.0)),
            format!("{}, {}", figure(rates.0), figure(rates.1)),
            ms(0.5),
            ms(0.99),
            if failed.is_empty() { "0".to_owned() } else { failed.join(" ") },
            ours(figure(run.each(cpu.service))),
            ours(figure(run.each(cpu.redis))),
            ours(figure(run.each(cpu.mysql))),
            figure(run.each(cpu.generator)),
            ours(figure(run.each(cpu.service + cpu.redis + cpu.mysql) / no_op_cpu)),
            ours(figure(run.each(run.used.scripts))),
            ours(figure(run.each(run.used.commands))),
            ours(figure(run.drain.as_secs_f64())),
        ]);
        Ok(())
    }

    async fn run(
        &mut self,
        scenario: &Rc<Scenario>,
        address: std::net::SocketAddr,
        count: usize,
        time: Duration,
    ) -> Result<Run, Failure> {
        let before = Reading::take(self.stack, &mut self.redis)?;
        let outcome = crowd::run(scenario, address, count, time).await?;
        let drain = self.stack.drained(&mut self.redis).await?;
        let used = Reading::take(self.stack, &mut self.redis)?.since(&before);
        Ok(Run { outcome, used, drain })
    }
}
