//! The table of hot paths: each scenario between two runs of the no-op, so that a machine that drifts shows itself.

use std::rc::Rc;
use std::time::Duration;

use crate::closed::{self, Outcome};
use crate::meter::Reading;
use crate::redis::Redis;
use crate::scenario::{People, Scenario, Stock};
use crate::stack::Stack;
use crate::table::{Table, figure};
use crate::{Failure, machine, memory, prepare, print, progress, writer};

/// People who wait while others poll.
const WAITING: usize = 10_000;
/// Holds that are prepared for each second of measuring; the hall is full after [`prepare::MOST_SEATS`].
const HOLDS_A_SECOND: f64 = 25_000.0;
/// The coupons of the sold-out scenario.
const FEW: usize = 100;
/// How long the no-op before and after each scenario runs, at most.
const NO_OP: Duration = Duration::from_millis(1_000);

/// All scenarios, in the order of the table.
const SCENARIOS: [&str; 11] =
    ["no-op", "bare", "listener", "poll", "state", "join", "hold", "charge", "issue", "sold-out", "purchase"];
/// What is measured besides, once.
const BESIDES: [&str; 2] = ["memory", "writer"];

const READING: &str = "\n`no-op` is `GET /healthz` of the service: an axum route that does nothing behind the layers that every answer passes \
(request id, metrics, panics, timeout, cache header). `bare` is the same on axum alone, in a process of its own, `listener` that router on the service's listener. `× no-op` compares \
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
    let all: Vec<_> = SCENARIOS.into_iter().chain(BESIDES).collect();
    if let Some(unknown) = only.iter().find(|name| !all.contains(&name.as_str())) {
        return Err(format!("there is no scenario {unknown}; there are {}", all.join(", ")).into());
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
    let mut bench = Bench::new(stack, Redis::open(stack.redis_port())?, time);
    print(&format!("{}\n", machine::describe()))?;
    let wanted = |name: &&str| only.is_empty() || only.iter().any(|wanted| wanted == name);
    if wanted(&"memory") {
        print(&memory::measure(stack).await?)?;
    }
    if wanted(&"writer") {
        print(&writer::measure(stack, &mut bench.redis).await?)?;
    }
    let names: Vec<_> = SCENARIOS.into_iter().filter(wanted).collect();
    for &count in connections.iter().filter(|_| !names.is_empty()) {
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
        let outcome = bench.rows(&mut table, &names, count).await;
        // What was measured before a failure is still worth reading.
        print(&format!("\n{count} connections, {:.1} s each:\n\n{}", time.as_secs_f64(), table.render()))?;
        outcome?;
    }
    if !names.is_empty() {
        print(READING)?;
    }
    bench.notes.dedup();
    bench.notes.iter().try_for_each(|note| print(&format!("\n- {note}")))?;
    print("\n")
}

/// A stack under measurement.
pub(crate) struct Bench<'a> {
    stack: &'a Stack,
    redis: Redis,
    time: Duration,
    notes: Vec<String>,
}

/// What one run took.
pub(crate) struct Run {
    pub(crate) outcome: Outcome,
    used: Reading,
    drain: Duration,
}

impl Run {
    /// Microseconds of something, or a count, for each unit that ended well.
    fn each(&self, sum: u64) -> f64 {
        sum as f64 / self.outcome.succeeded() as f64
    }

    /// Microseconds of processor time of service, Redis and MySQL for each unit.
    pub(crate) fn cpu_each(&self) -> f64 {
        let cpu = &self.used.cpu;
        self.each(cpu.service + cpu.redis + cpu.mysql)
    }
}

impl<'a> Bench<'a> {
    /// Measures a stack, each scenario for `time`.
    pub(crate) fn new(stack: &'a Stack, redis: Redis, time: Duration) -> Self {
        Self { stack, redis, time, notes: Vec::new() }
    }

    async fn rows(&mut self, table: &mut Table, names: &[&str], count: usize) -> Result<(), Failure> {
        for name in names {
            progress(&format!("{name} on {count} connections"));
            let scenario = self.prepare(name, &count.to_string()).await?;
            self.row(table, name, Rc::new(scenario), count).await?;
        }
        Ok(())
    }

    /// Makes what a scenario needs; its things have names that no other label has.
    pub(crate) async fn prepare(&mut self, name: &str, label: &str) -> Result<Scenario, Failure> {
        let queue = format!("{name}-{label}");
        let (stack, people) = (&self.stack.target, People::new());
        Ok(match name {
            "no-op" => Scenario::Get("/healthz".to_owned()),
            "bare" | "listener" => Scenario::Get("/noop".to_owned()),
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
                let schedule = prepare::hall(stack, &queue, prepare::MOST_SEATS).await?;
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
                let schedule = prepare::hall(stack, &queue, prepare::MOST_SEATS).await?;
                let seats = Stock::new(vec![(); prepare::MOST_SEATS]);
                Scenario::Purchase { queue, schedule, seats, people }
            }
            "issue" => {
                prepare::coupon(stack, &queue, 1_000_000_000).await?;
                Scenario::Issue { path: format!("/v1/coupons/{queue}/issues"), people, status: 201 }
            }
            "sold-out" => {
                prepare::coupon(stack, &queue, FEW as u64).await?;
                prepare::issued(stack, &queue, FEW).await?;
                Scenario::Issue { path: format!("/v1/coupons/{queue}/issues"), people, status: 409 }
            }
            _ => {
                return Err(format!("there is no scenario {name}; there are {}", SCENARIOS.join(", ")).into());
            }
        })
    }

    /// Measures one scenario between two no-ops.
    async fn row(
        &mut self,
        table: &mut Table,
        name: &str,
        scenario: Rc<Scenario>,
        count: usize,
    ) -> Result<(), Failure> {
        let address = match name {
            "bare" => self.stack.bare_addresses[0],
            "listener" => self.stack.bare_addresses[1],
            _ => self.stack.target.public,
        };
        let no_op = Rc::new(Scenario::Get("/healthz".to_owned()));
        let no_op_time = self.time.min(NO_OP);
        self.stack.drained(&mut self.redis).await?;
        let before = self.timed(&no_op, self.stack.target.public, count, no_op_time).await?;
        let run = self.run(&scenario, address, count).await?;
        let after = self.timed(&no_op, self.stack.target.public, count, no_op_time).await?;
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
        let ours =
            |shown: String| if ["bare", "listener"].contains(&name) { "–".to_owned() } else { shown };
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
            ours(figure(run.cpu_each() / no_op_cpu)),
            ours(figure(run.each(run.used.scripts))),
            ours(figure(run.each(run.used.commands))),
            ours(figure(run.drain.as_secs_f64())),
        ]);
        Ok(())
    }

    /// Runs a scenario once.
    pub(crate) async fn run(
        &mut self,
        scenario: &Rc<Scenario>,
        address: std::net::SocketAddr,
        count: usize,
    ) -> Result<Run, Failure> {
        self.timed(scenario, address, count, self.time).await
    }

    async fn timed(
        &mut self,
        scenario: &Rc<Scenario>,
        address: std::net::SocketAddr,
        count: usize,
        time: Duration,
    ) -> Result<Run, Failure> {
        let before = Reading::take(self.stack, &mut self.redis)?;
        let outcome = closed::run(scenario, address, count, time).await?;
        let drain = self.stack.drained(&mut self.redis).await?;
        let used = Reading::take(self.stack, &mut self.redis)?.since(&before);
        Ok(Run { outcome, used, drain })
    }
}
