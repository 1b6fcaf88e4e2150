//! Measures the hot paths at saturation. Each scenario runs between two no-op runs, so that a
//! machine whose speed drifts is visible in the table.

use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use clap::Args;

use crate::closed_loop::{self, LoadOutcome};
use crate::redis_connection::RedisConnection;
use crate::resource_usage::ResourceUsage;
use crate::scenario::{FreshUsers, LoadScenario, PreparedItems};
use crate::stack::ServiceStack;
use crate::table::{MarkdownTable, figure};
use crate::{BoxError, document, log_progress, machine, memory, print, setup, writer_speed};

const WAITING_USERS: usize = 10_000;
/// Holds prepared per second of measuring time, up to [`setup::MAX_SEATS`].
const HOLDS_PER_SECOND: f64 = 25_000.0;
const SOLD_OUT_QUOTA: usize = 100;
const MAX_NO_OP_TIME: Duration = Duration::from_millis(1_000);

/// Rows of the table, in this order.
const SCENARIOS: [&str; 9] =
    ["no-op", "poll", "state", "join", "hold", "charge", "issue", "sold-out", "purchase"];
/// Measurements with tables of a different shape.
const EXTRA_TABLES: [&str; 2] = ["memory", "writer"];

#[derive(Args)]
pub(crate) struct BenchOptions {
    /// Numbers of connections, each with one request in flight
    #[arg(long, value_delimiter = ',', default_value = "64,256")]
    connections: Vec<usize>,
    /// Measuring time per scenario, in seconds
    #[arg(long, default_value = "3", value_parser = crate::measuring_time)]
    seconds: Duration,
    /// Names of scenarios [default: all]
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Path of the service binary [default: `usher` in the directory of this binary]
    #[arg(long)]
    usher: Option<PathBuf>,
    /// Also replace the sections `bench`, `memory` and `writer` of this Markdown file
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
}

pub(crate) async fn run(options: BenchOptions) -> Result<ExitCode, BoxError> {
    let known: Vec<_> = SCENARIOS.into_iter().chain(EXTRA_TABLES).collect();
    if let Some(unknown) = options.only.iter().find(|name| !known.contains(&name.as_str())) {
        return Err(format!("unknown scenario {unknown}; known are {}", known.join(", ")).into());
    }
    if options.connections.iter().any(|count| !(1..=10_000).contains(count)) {
        return Err("--connections must be from 1 to 10000 each".into());
    }
    let stack = ServiceStack::start(options.usher.clone()).await?;
    let measured = measure(&stack, &options).await;
    stack.stop().await?;
    measured?;
    Ok(ExitCode::SUCCESS)
}

async fn measure(stack: &ServiceStack, options: &BenchOptions) -> Result<(), BoxError> {
    let mut bench = HotPathBench::new(stack, options.seconds)?;
    let machine = machine::describe();
    print(&format!("{machine}\n"))?;
    let publish = |section: &str, text: &str| -> Result<(), BoxError> {
        print(&format!("\n{text}"))?;
        match &options.write {
            Some(path) => document::write_section(path, section, &format!("{machine}\n\n{text}")),
            None => Ok(()),
        }
    };
    let wanted = |name: &&str| options.only.is_empty() || options.only.iter().any(|it| it == name);
    // Memory first: it needs an instance that has served nothing.
    if wanted(&"memory") {
        publish("memory", &memory::measure(stack).await?)?;
    }
    if wanted(&"writer") {
        publish("writer", &writer_speed::measure(stack, &mut bench.redis).await?)?;
    }
    let names: Vec<_> = SCENARIOS.into_iter().filter(wanted).collect();
    if names.is_empty() {
        return Ok(());
    }
    let mut text = String::new();
    for &connections in &options.connections {
        let table = bench.measure_table(&names, connections).await?;
        let seconds = options.seconds.as_secs_f64();
        text.push_str(&format!("{connections} connections, {seconds:.1} s each:\n\n{table}\n"));
    }
    bench.notes.iter().for_each(|note| text.push_str(&format!("- {note}\n")));
    publish("bench", &text)
}

/// Measures scenarios on one stack.
pub(crate) struct HotPathBench<'a> {
    stack: &'a ServiceStack,
    redis: RedisConnection,
    time: Duration,
    notes: Vec<String>,
}

/// One run of one scenario.
pub(crate) struct MeasuredRun {
    pub(crate) outcome: LoadOutcome,
    used: ResourceUsage,
    /// How long the writer needed after the last response.
    drain: Duration,
}

impl MeasuredRun {
    fn per_unit(&self, sum: u64) -> f64 {
        sum as f64 / self.outcome.succeeded() as f64
    }

    /// CPU time of service, Redis and MySQL per unit, in microseconds.
    pub(crate) fn cpu_per_unit(&self) -> f64 {
        let cpu = &self.used.cpu;
        self.per_unit(cpu.service + cpu.redis + cpu.mysql)
    }
}

impl<'a> HotPathBench<'a> {
    pub(crate) fn new(stack: &'a ServiceStack, time: Duration) -> Result<Self, BoxError> {
        let redis = RedisConnection::open(stack.redis_port())?;
        Ok(Self { stack, redis, time, notes: Vec::new() })
    }

    async fn measure_table(
        &mut self,
        names: &[&str],
        connections: usize,
    ) -> Result<String, BoxError> {
        let mut table = MarkdownTable::new(&[
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
        for name in names {
            log_progress(&format!("{name} on {connections} connections"));
            let scenario = self.prepare(name, &connections.to_string()).await?;
            table.add_row(self.measure_row(name, Rc::new(scenario), connections).await?);
        }
        Ok(table.render())
    }

    /// Creates what a scenario needs. Each label gets its own queue, concert or coupon.
    pub(crate) async fn prepare(&self, name: &str, label: &str) -> Result<LoadScenario, BoxError> {
        let id = format!("{name}-{label}");
        let (service, users) = (self.stack.addresses(), FreshUsers::new());
        Ok(match name {
            "no-op" => LoadScenario::Get("/healthz".to_owned()),
            "poll" => {
                setup::paused_queue(service, &id).await?;
                let tokens = setup::join_users(service, &id, WAITING_USERS).await?;
                let path = format!("/v1/queues/{id}/tokens/me");
                LoadScenario::Poll { path, tokens: PreparedItems::new(tokens) }
            }
            "state" => {
                setup::paused_queue(service, &id).await?;
                LoadScenario::Get(format!("/v1/queues/{id}"))
            }
            "join" => {
                setup::paused_queue(service, &id).await?;
                LoadScenario::Join { path: format!("/v1/queues/{id}/tokens"), users }
            }
            "hold" => {
                let schedule = setup::open_concert(service, &id, setup::MAX_SEATS).await?;
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a bounded number above zero"
                )]
                let holders = (self.time.as_secs_f64() * HOLDS_PER_SECOND) as usize;
                let holders = holders.min(setup::MAX_SEATS);
                let tokens = setup::join_users(service, &id, holders).await?;
                LoadScenario::Hold { schedule, tokens: PreparedItems::new(tokens) }
            }
            "charge" => LoadScenario::Charge { users },
            "purchase" => {
                let schedule = setup::open_concert(service, &id, setup::MAX_SEATS).await?;
                let seats = PreparedItems::new(vec![(); setup::MAX_SEATS]);
                LoadScenario::Purchase { queue: id, schedule, seats, users }
            }
            "issue" => {
                setup::coupon(service, &id, 1_000_000_000).await?;
                LoadScenario::Issue { path: format!("/v1/coupons/{id}/issues"), users, status: 201 }
            }
            "sold-out" => {
                setup::coupon(service, &id, SOLD_OUT_QUOTA as u64).await?;
                setup::issue_coupons(service, &id, SOLD_OUT_QUOTA).await?;
                LoadScenario::Issue { path: format!("/v1/coupons/{id}/issues"), users, status: 409 }
            }
            _ => {
                let known = SCENARIOS.join(", ");
                return Err(format!("unknown scenario {name}; known are {known}").into());
            }
        })
    }

    /// Measures one scenario between two no-op runs.
    async fn measure_row(
        &mut self,
        name: &str,
        scenario: Rc<LoadScenario>,
        connections: usize,
    ) -> Result<Vec<String>, BoxError> {
        let no_op = Rc::new(LoadScenario::Get("/healthz".to_owned()));
        let no_op_time = self.time.min(MAX_NO_OP_TIME);
        self.stack.wait_until_drained(&mut self.redis).await?;
        let before = self.run_for(&no_op, connections, no_op_time).await?;
        let run = self.run(&scenario, connections).await?;
        let after = self.run_for(&no_op, connections, no_op_time).await?;
        let outcome = &run.outcome;
        if outcome.exhausted {
            let took = outcome.elapsed.as_secs_f64();
            self.notes.push(format!(
                "{name} at {connections} connections used all prepared items within {took:.1} s."
            ));
        }
        let no_op_rates = (before.outcome.rate(), after.outcome.rate());
        let no_op_cpu = f64::midpoint(
            before.per_unit(before.used.cpu.service),
            after.per_unit(after.used.cpu.service),
        );
        let cpu = &run.used.cpu;
        let failed: Vec<_> =
            outcome.failures.iter().map(|(status, count)| format!("{count}×{status}")).collect();
        Ok(vec![
            name.to_owned(),
            figure(outcome.rate()),
            figure(outcome.rate() / f64::midpoint(no_op_rates.0, no_op_rates.1)),
            format!("{}, {}", figure(no_op_rates.0), figure(no_op_rates.1)),
            figure(outcome.latency_ms(0.5)),
            figure(outcome.latency_ms(0.99)),
            if failed.is_empty() { "0".to_owned() } else { failed.join(" ") },
            figure(run.per_unit(cpu.service)),
            figure(run.per_unit(cpu.redis)),
            figure(run.per_unit(cpu.mysql)),
            figure(run.per_unit(cpu.generator)),
            figure(run.cpu_per_unit() / no_op_cpu),
            figure(run.per_unit(run.used.scripts)),
            figure(run.per_unit(run.used.commands)),
            figure(run.drain.as_secs_f64()),
        ])
    }

    /// Runs a scenario once, for the measuring time of the bench.
    pub(crate) async fn run(
        &mut self,
        scenario: &Rc<LoadScenario>,
        connections: usize,
    ) -> Result<MeasuredRun, BoxError> {
        self.run_for(scenario, connections, self.time).await
    }

    async fn run_for(
        &mut self,
        scenario: &Rc<LoadScenario>,
        connections: usize,
        time: Duration,
    ) -> Result<MeasuredRun, BoxError> {
        let before = ResourceUsage::read(self.stack, &mut self.redis)?;
        let address = self.stack.addresses().public;
        let outcome = closed_loop::run(scenario, address, connections, time).await?;
        // The writer's work belongs to the scenario, so usage is read when MySQL has every event.
        let drain = self.stack.wait_until_drained(&mut self.redis).await?;
        let used = ResourceUsage::read(self.stack, &mut self.redis)?.since(&before);
        Ok(MeasuredRun { outcome, used, drain })
    }
}
