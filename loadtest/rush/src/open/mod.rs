//! A crowd that comes at its own pace, whatever the service does: an open loop. Several processes share it; what they measured and what
//! their users saw is put together here, judged, and told.

mod bar;
mod checks;
mod client;
mod crew;
mod measure;
mod plan;
mod plot;
mod report;
mod schedule;
mod seen;
mod users;
pub(crate) mod worker;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::connection::Connection;
use crate::stack::{Stack, Target};
use crate::{Failure, machine, prepare, print, progress};
use checks::{Public, Sizes};
use plan::{Kind, Plan};
use report::Report;

/// The longest run, in arrivals: what users saw is kept until the end.
const MOST: u64 = 5_000_000;

/// Who comes.
#[derive(Subcommand)]
pub(crate) enum Crowd {
    /// Users join, wait as told, hold a seat, charge and pay
    Journeys {
        #[command(flatten)]
        common: Common,
        /// Users
        #[arg(long, default_value_t = 6_000)]
        users: u64,
        /// Users who come in a second
        #[arg(long, default_value_t = 300.0)]
        rate: f64,
        /// Seats of the hall
        #[arg(long, default_value_t = 3_000)]
        seats: u64,
        /// Users who are let in in a second
        #[arg(long, default_value_t = 200)]
        admit: u64,
    },
    /// Users ask for a coupon, each twice
    Coupons {
        #[command(flatten)]
        common: Common,
        /// Users
        #[arg(long, default_value_t = 30_000)]
        users: u64,
        /// Users who come in a second
        #[arg(long, default_value_t = 3_000.0)]
        rate: f64,
        /// Coupons
        #[arg(long, default_value_t = 10_000)]
        quota: u64,
    },
    /// Users who stand in line ask how long yet
    Polls {
        #[command(flatten)]
        common: Common,
        /// Users in line
        #[arg(long, default_value_t = 20_000)]
        users: u64,
        /// Polls in a second
        #[arg(long, default_value_t = 8_000.0)]
        rate: f64,
        /// How long
        #[arg(long, default_value_t = 10)]
        seconds: u32,
        /// Users who are let in in a second
        #[arg(long, default_value_t = 200)]
        admit: u64,
    },
}

/// What every crowd takes.
#[derive(Args)]
pub(crate) struct Common {
    /// Processes that share the crowd
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=64))]
    processes: u64,
    /// Connections of each process
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    connections: u64,
    /// The report
    #[arg(long, default_value = "rush.html")]
    report: PathBuf,
    /// The service's binary [default: `usher` beside this one]
    #[arg(long, conflicts_with = "address")]
    usher: Option<PathBuf>,
    /// The public listener of a service that runs, in place of an own stack
    #[arg(long, requires = "admin")]
    address: Option<SocketAddr>,
    /// Its admin listener; the key is read from USHER_ADMIN_KEY
    #[arg(long, requires = "address")]
    admin: Option<SocketAddr>,
}

/// Lets a crowd come, tells what it saw, and answers whether every promise was kept.
pub(crate) async fn run(crowd: Crowd) -> Result<ExitCode, Failure> {
    let wanted = Wanted::new(crowd)?;
    let report = match (wanted.common.address, wanted.common.admin) {
        (Some(public), Some(admin)) => {
            let key = std::env::var("USHER_ADMIN_KEY").map_err(|_| "USHER_ADMIN_KEY is not set")?;
            wanted.carry_out(&Target::new(public, admin, &key)).await?
        }
        _ => {
            let stack = Stack::start(wanted.common.usher.clone()).await?;
            let report = wanted.carry_out(&stack.target).await;
            stack.stop().await?;
            report?
        }
    };
    print(&report.text())?;
    std::fs::write(&wanted.common.report, report.html())?;
    progress(&format!("the report is {}", wanted.common.report.display()));
    Ok(if report.kept() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A crowd by numbers.
struct Wanted {
    common: Common,
    kind: Kind,
    users: u64,
    arrivals: u64,
    rate: f64,
    admit: u64,
    sizes: Sizes,
}

impl Wanted {
    fn new(crowd: Crowd) -> Result<Self, Failure> {
        let sizes = |seats, quota, admit| Sizes { seats, quota, max_active: admit * 5 };
        let wanted = match crowd {
            Crowd::Journeys { common, users, rate, seats, admit } => Self {
                common,
                kind: Kind::Journeys,
                users,
                arrivals: users,
                rate,
                admit,
                sizes: sizes(seats, 0, admit),
            },
            Crowd::Coupons { common, users, rate, quota } => Self {
                common,
                kind: Kind::Coupons,
                users,
                arrivals: users,
                rate,
                admit: 0,
                sizes: sizes(0, quota, 0),
            },
            Crowd::Polls { common, users, rate, seconds, admit } => {
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked below")]
                let arrivals = (rate * f64::from(seconds)) as u64;
                Self { common, kind: Kind::Polls, users, arrivals, rate, admit, sizes: sizes(0, 0, admit) }
            }
        };
        let Self { users, arrivals, rate, sizes, admit, kind, .. } = &wanted;
        let bad = if !(1..=MOST).contains(users) || !(1..=MOST).contains(arrivals) {
            "users (and polls) must be from 1 to 5000000"
        } else if !(0.1..=1e6).contains(rate) {
            "--rate must be from 0.1 to 1000000"
        } else if *kind == Kind::Journeys && !(1..=prepare::MOST_SEATS as u64).contains(&sizes.seats) {
            "--seats must be from 1 to 100000"
        } else if *kind == Kind::Coupons && sizes.quota == 0 {
            "--quota must be 1 or more"
        } else if *kind != Kind::Coupons && !(1..=100_000).contains(admit) {
            "--admit must be from 1 to 100000"
        } else {
            return Ok(wanted);
        };
        Err(bad.into())
    }

    async fn carry_out(&self, target: &Target) -> Result<Report, Failure> {
        let (name, seed) =
            (format!("rush-{}", &Uuid::new_v4().simple().to_string()[..12]), Uuid::new_v4().as_u128());
        let mut schedule = String::new();
        match self.kind {
            Kind::Journeys | Kind::Polls => {
                prepare::moving_queue(target, &name, self.admit, self.sizes.max_active).await?;
                if self.kind == Kind::Journeys {
                    schedule = prepare::concert(target, &name, usize::try_from(self.sizes.seats)?).await?;
                }
            }
            Kind::Coupons => prepare::coupon(target, &name, self.sizes.quota).await?,
        }
        let share = |at| Plan {
            kind: self.kind,
            address: target.public,
            name: name.clone(),
            schedule: schedule.clone(),
            seats: self.sizes.seats,
            seed,
            users: self.users,
            arrivals: self.arrivals,
            rate: self.rate,
            process: (at, self.common.processes),
            connections: usize::try_from(self.common.connections).unwrap_or(1),
        };
        let plans: Vec<_> = (0..self.common.processes).map(share).collect();
        let goal = if self.kind == Kind::Polls { self.arrivals } else { self.users };
        let run = crew::run(&plans, goal).await?;
        let public = self.public(target, &name).await?;
        let checks = match self.kind {
            Kind::Journeys => checks::journeys(&run.seen, &public, self.sizes),
            Kind::Coupons => checks::coupons(&run.seen, &public, self.sizes),
            Kind::Polls => checks::polls(&run.seen),
        };
        Ok(Report {
            title: self.title(),
            machine: machine::describe(),
            seconds: run.seconds,
            steps: run.steps,
            seen: run.seen,
            checks,
        })
    }

    fn title(&self) -> String {
        let Self { users, rate, admit, sizes, common, .. } = self;
        let with = format!("{} processes", common.processes);
        match self.kind {
            Kind::Journeys => format!(
                "{users} users come, {rate} a second; {admit} a second are let in to {} seats; {with}",
                sizes.seats
            ),
            Kind::Coupons => {
                format!("{users} users come for {} coupons, {rate} a second; {with}", sizes.quota)
            }
            Kind::Polls => format!("{users} users in line poll {rate} times a second; {with}"),
        }
    }

    /// What the service says when all is over.
    async fn public(&self, target: &Target, name: &str) -> Result<Public, Failure> {
        match self.kind {
            Kind::Journeys => Ok(Public { sold: sold(target, name).await?, issued: 0 }),
            Kind::Coupons => {
                let path = format!("/v1/coupons/{name}");
                let wanted = json!(self.sizes.quota.min(self.users));
                // The public answer may be a second old.
                for _ in 0..20 {
                    if get(target.public, &path, &[]).await?["issued_quantity"] == wanted {
                        break;
                    }
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
                let coupon = get(target.public, &path, &[]).await?;
                let issued =
                    coupon["issued_quantity"].as_u64().ok_or("the coupon tells no issued_quantity")?;
                Ok(Public { sold: Vec::new(), issued })
            }
            Kind::Polls => Ok(Public::default()),
        }
    }
}

/// The seats of confirmed reservations, page by page.
async fn sold(target: &Target, concert: &str) -> Result<Vec<u64>, Failure> {
    let (mut sold, mut before) = (Vec::new(), String::new());
    let headers = [("authorization", target.admin_authorization.as_str())];
    loop {
        let path = format!("/admin/concerts/{concert}/reservations?limit=500{before}");
        let page = get(target.admin, &path, &headers).await?;
        let items = page["items"].as_array().ok_or("the list of reservations has no items")?;
        for reservation in items.iter().filter(|item| item["status"] == "confirmed") {
            let seats = reservation["seats"].as_array().into_iter().flatten();
            sold.extend(seats.filter_map(|seat| seat["number"].as_u64()));
        }
        match page["next"].as_str() {
            Some(next) => before = format!("&before={next}"),
            None => return Ok(sold),
        }
    }
}

async fn get(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Result<Value, Failure> {
    let mut connection = Connection::open(address).await?;
    match connection.get(path, headers).await? {
        200 => Ok(serde_json::from_slice(connection.body())?),
        status => Err(format!("GET {path}: {status} {}", String::from_utf8_lossy(connection.body())).into()),
    }
}
