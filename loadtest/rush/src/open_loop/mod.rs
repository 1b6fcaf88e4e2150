//! Open-loop load: users arrive at a fixed rate, independent of the service's speed. Each run is
//! judged from outside, by what the users observed and by what the service publishes.

mod checks;
mod client;
mod generator;
mod latency;
mod observation;
mod report;
mod simulated_users;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::connection::HttpConnection;
use crate::stack::ServiceStack;
use crate::usher_process::ServiceAddresses;
use crate::{BoxError, document, machine, print, setup};
use checks::{LoadSizes, PublishedResult};
use generator::{LoadKind, LoadPlan};
use report::LoadReport;

/// Observations are kept in memory until the end, so the number of arrivals is bounded.
const MAX_ARRIVALS: u64 = 5_000_000;

#[derive(Subcommand)]
pub(crate) enum OpenLoopCommand {
    /// Users join, poll as advised, hold a seat, charge their wallet and pay
    Journeys {
        #[command(flatten)]
        common: CommonOptions,
        /// Number of users
        #[arg(long, default_value_t = 6_000)]
        users: u64,
        /// Users who arrive per second
        #[arg(long, default_value_t = 300.0)]
        rate: f64,
        /// Number of seats
        #[arg(long, default_value_t = 3_000)]
        seats: u64,
        /// Users admitted per second
        #[arg(long, default_value_t = 200)]
        admit: u64,
    },
    /// Users request a coupon, each of them twice
    Coupons {
        #[command(flatten)]
        common: CommonOptions,
        /// Number of users
        #[arg(long, default_value_t = 30_000)]
        users: u64,
        /// Users who arrive per second
        #[arg(long, default_value_t = 3_000.0)]
        rate: f64,
        /// Number of coupons
        #[arg(long, default_value_t = 10_000)]
        quota: u64,
    },
    /// Waiting users poll their tickets
    Polls {
        #[command(flatten)]
        common: CommonOptions,
        /// Number of waiting users
        #[arg(long, default_value_t = 20_000)]
        users: u64,
        /// Polls per second
        #[arg(long, default_value_t = 8_000.0)]
        rate: f64,
        /// Length of the run, in seconds
        #[arg(long, default_value_t = 10)]
        seconds: u32,
        /// Users admitted per second
        #[arg(long, default_value_t = 200)]
        admit: u64,
    },
}

#[derive(Args)]
pub(crate) struct CommonOptions {
    /// Threads that share the load
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=64))]
    threads: u64,
    /// Connections per thread
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    connections: u64,
    /// Path of the service binary [default: `usher` in the directory of this binary]
    #[arg(long, conflicts_with = "address")]
    usher: Option<PathBuf>,
    /// Public listener of a running service, which is used instead of private servers
    #[arg(long, requires = "admin")]
    address: Option<SocketAddr>,
    /// Admin listener of the running service; its key is read from USHER_ADMIN_KEY
    #[arg(long, requires = "address")]
    admin: Option<SocketAddr>,
    /// Also replace the section of this Markdown file that is named like the command
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
}

/// Exits with success if every promise was kept.
pub(crate) async fn run(command: OpenLoopCommand) -> Result<ExitCode, BoxError> {
    let run = OpenLoopRun::new(command)?;
    let report = match (run.common.address, run.common.admin) {
        (Some(public), Some(admin)) => {
            let key = std::env::var("USHER_ADMIN_KEY").map_err(|_| "USHER_ADMIN_KEY is not set")?;
            run.execute(&ServiceAddresses::new(public, admin, &key)).await?
        }
        _ => {
            let stack = ServiceStack::start(run.common.usher.clone()).await?;
            let report = run.execute(stack.addresses()).await;
            stack.stop().await?;
            report?
        }
    };
    let text = report.text();
    print(&text)?;
    if let Some(path) = &run.common.write {
        document::write_section(path, run.kind.name(), &text)?;
    }
    Ok(if report.all_kept() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A checked command.
struct OpenLoopRun {
    common: CommonOptions,
    kind: LoadKind,
    users: u64,
    /// Users who arrive, or polls.
    arrivals: u64,
    rate: f64,
    admit: u64,
    sizes: LoadSizes,
}

impl OpenLoopRun {
    fn new(command: OpenLoopCommand) -> Result<Self, BoxError> {
        let sizes = |seats, quota, admit| LoadSizes { seats, quota, max_active: admit * 5 };
        let run = match command {
            OpenLoopCommand::Journeys { common, users, rate, seats, admit } => Self {
                common,
                kind: LoadKind::Journeys,
                users,
                arrivals: users,
                rate,
                admit,
                sizes: sizes(seats, 0, admit),
            },
            OpenLoopCommand::Coupons { common, users, rate, quota } => Self {
                common,
                kind: LoadKind::Coupons,
                users,
                arrivals: users,
                rate,
                admit: 0,
                sizes: sizes(0, quota, 0),
            },
            OpenLoopCommand::Polls { common, users, rate, seconds, admit } => {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "checked below"
                )]
                let arrivals = (rate * f64::from(seconds)) as u64;
                let (kind, sizes) = (LoadKind::Polls, sizes(0, 0, admit));
                Self { common, kind, users, arrivals, rate, admit, sizes }
            }
        };
        let Self { users, arrivals, rate, sizes, admit, kind, .. } = &run;
        let problem =
            if !(1..=MAX_ARRIVALS).contains(users) || !(1..=MAX_ARRIVALS).contains(arrivals) {
                "users and polls must be from 1 to 5000000"
            } else if !(0.1..=1e6).contains(rate) {
                "--rate must be from 0.1 to 1000000"
            } else if *kind == LoadKind::Journeys
                && !(1..=setup::MAX_SEATS as u64).contains(&sizes.seats)
            {
                "--seats must be from 1 to 100000"
            } else if *kind == LoadKind::Coupons && sizes.quota == 0 {
                "--quota must be at least 1"
            } else if *kind != LoadKind::Coupons && !(1..=100_000).contains(admit) {
                "--admit must be from 1 to 100000"
            } else {
                return Ok(run);
            };
        Err(problem.into())
    }

    async fn execute(&self, service: &ServiceAddresses) -> Result<LoadReport, BoxError> {
        let name = format!("rush-{}", &Uuid::new_v4().simple().to_string()[..12]);
        let mut schedule = String::new();
        match self.kind {
            LoadKind::Journeys | LoadKind::Polls => {
                setup::running_queue(service, &name, self.admit, self.sizes.max_active).await?;
                if self.kind == LoadKind::Journeys {
                    let seats = usize::try_from(self.sizes.seats)?;
                    schedule = setup::concert(service, &name, seats).await?;
                }
            }
            LoadKind::Coupons => setup::coupon(service, &name, self.sizes.quota).await?,
        }
        let plan = LoadPlan {
            kind: self.kind,
            address: service.public,
            name: name.clone(),
            schedule,
            seats: self.sizes.seats,
            seed: Uuid::new_v4().as_u128(),
            users: self.users,
            arrivals: self.arrivals,
            rate: self.rate,
            threads: self.common.threads,
            connections: usize::try_from(self.common.connections)?,
        };
        let result = generator::run(plan).await?;
        let published = self.published_result(service, &name).await?;
        let checks = match self.kind {
            LoadKind::Journeys => checks::journeys(&result.observations, &published, self.sizes),
            LoadKind::Coupons => checks::coupons(&result.observations, &published, self.sizes),
            LoadKind::Polls => checks::polls(&result.observations),
        };
        Ok(LoadReport { title: self.title(), machine: machine::describe(), result, checks })
    }

    fn title(&self) -> String {
        let Self { users, rate, admit, sizes, .. } = self;
        match self.kind {
            LoadKind::Journeys => format!(
                "{users} users arrive, {rate} per second, and {admit} are admitted, for {} seats",
                sizes.seats
            ),
            LoadKind::Coupons => {
                format!("{users} users request {} coupons, {rate} per second", sizes.quota)
            }
            LoadKind::Polls => format!("{users} waiting users poll {rate} times per second"),
        }
    }

    /// What the service publishes after the run.
    async fn published_result(
        &self,
        service: &ServiceAddresses,
        name: &str,
    ) -> Result<PublishedResult, BoxError> {
        match self.kind {
            LoadKind::Journeys => {
                Ok(PublishedResult { sold: confirmed_seats(service, name).await?, issued: 0 })
            }
            LoadKind::Coupons => {
                let path = format!("/v1/coupons/{name}");
                let expected = json!(self.sizes.quota.min(self.users));
                // The public count may be one second old.
                for _ in 0..20 {
                    if get(service.public, &path, &[]).await?["issued_quantity"] == expected {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                let coupon = get(service.public, &path, &[]).await?;
                let issued = coupon["issued_quantity"]
                    .as_u64()
                    .ok_or("the coupon has no issued_quantity")?;
                Ok(PublishedResult { sold: Vec::new(), issued })
            }
            LoadKind::Polls => Ok(PublishedResult::default()),
        }
    }
}

/// Seats of all confirmed reservations, from the paged admin list.
async fn confirmed_seats(service: &ServiceAddresses, concert: &str) -> Result<Vec<u64>, BoxError> {
    let (mut sold, mut cursor) = (Vec::new(), String::new());
    let headers = [("authorization", service.admin_authorization.as_str())];
    loop {
        let path = format!("/admin/concerts/{concert}/reservations?limit=500{cursor}");
        let page = get(service.admin, &path, &headers).await?;
        let items = page["items"].as_array().ok_or("the list of reservations has no items")?;
        for reservation in items.iter().filter(|item| item["status"] == "confirmed") {
            let seats = reservation["seats"].as_array().into_iter().flatten();
            sold.extend(seats.filter_map(|seat| seat["number"].as_u64()));
        }
        match page["next"].as_str() {
            Some(next) => cursor = format!("&before={next}"),
            None => return Ok(sold),
        }
    }
}

async fn get(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Result<Value, BoxError> {
    let mut connection = HttpConnection::open(address).await?;
    match connection.get(path, headers).await? {
        200 => Ok(serde_json::from_slice(connection.body())?),
        status => {
            let body = String::from_utf8_lossy(connection.body());
            Err(format!("GET {path}: {status} {body}").into())
        }
    }
}
