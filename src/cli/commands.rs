//! The commands and their arguments.

use clap::{ArgMatches, Command, Subcommand};

use super::config_check::SettingsCheck;
use super::operator_commands::{
    ApplyArgs, JobCommand, OperatorRequest, QueueCommand, ReservationCommand, ScheduleCommand,
    UserCommand,
};
use super::prepared::PreparedCommand;
use crate::app::OperatorCommand;
use crate::config::args::{
    DevArgs, MigrateArgs, MysqlArgs, OperatorArgs, ServeArgs, StoreArgs, TopArgs,
};
use crate::config::dev::DevSettings;
use crate::config::{
    InvalidSettings, MigrateSettings, MysqlSettings, OperatorSettings, StoreSettings, UsherConfig,
};
use crate::ids::{ConcertId, QueueId};

#[derive(Subcommand)]
pub(super) enum CliCommand {
    /// Run an instance on the given Redis and MySQL
    ///
    /// It serves the public API and the admin API until SIGTERM or SIGINT, then drains. The schema
    /// must exist: run `usher migrate` first.
    Serve(Box<ServeArgs>),
    /// Run an instance for development, with private stores and demo data
    ///
    /// It starts a private Redis and MariaDB, stores the demo data, generates secrets, prints all
    /// addresses and example calls, and stops everything on Ctrl-C. The data directory keeps the
    /// data.
    Dev(Box<DevArgs>),
    /// Create the MySQL schema, or bring it up to date
    ///
    /// Run it before the first start and before each update. The first run stores the number of
    /// partitions.
    Migrate(MigrateArgs),
    /// Store sample data
    #[command(subcommand)]
    Seed(SeedCommand),
    /// Check all invariants over Redis and MySQL
    ///
    /// It compares balances, seats, payments, coupons, rewards and queues of both stores and prints
    /// one line per check. Instances may be running. The exit code is 1 if a check finds a fault.
    #[command(args_conflicts_with_subcommands = true)]
    Audit {
        #[command(subcommand)]
        scope: Option<AuditCommand>,
        #[command(flatten)]
        stores: Box<StoreArgs>,
    },
    /// End the sale of a concert and remove its records from Redis
    ///
    /// The rows in MySQL stay. A sale can't be reopened.
    Archive {
        /// Id of the concert
        concert: ConcertId,
        #[command(flatten)]
        stores: StoreArgs,
    },
    /// Restore Redis from MySQL when it is empty, stale, or belongs to another installation
    ///
    /// It restores every partition that does not serve. Instances may be running; partitions that
    /// serve are not affected.
    Recover {
        /// Restore only this partition, even if it serves. Its holds and queue positions are lost
        #[arg(long, value_name = "NUMBER")]
        partition: Option<u16>,
        #[command(flatten)]
        stores: StoreArgs,
    },
    /// Change the number of partitions to USHER_PARTITIONS
    ///
    /// Stop all instances first. It audits the stores, writes everything to MySQL, changes the
    /// number, restores Redis from MySQL and audits again. Holds are lost. An interrupted run can
    /// be repeated.
    Repartition(StoreArgs),
    /// List or retry events that MySQL refused
    #[command(subcommand)]
    DeadLetters(DeadLettersCommand),
    /// Pause, open, close or change a queue
    #[command(subcommand)]
    Queue(QueueCommand),
    /// Show a user, or remove one from a queue
    #[command(subcommand)]
    User(UserCommand),
    /// Cancel a reservation
    #[command(subcommand)]
    Reservation(ReservationCommand),
    /// Call off a date
    #[command(subcommand)]
    Schedule(ScheduleCommand),
    /// List the jobs in the background
    #[command(subcommand)]
    Job(JobCommand),
    /// Make queues, concerts, coupons and rewards those of a file
    ///
    /// Prints the difference, field by field, and applies it. A field that the file omits gets its
    /// default. Objects that the file does not name stay. A definition that another operator changes
    /// meanwhile is not overwritten.
    Apply(ApplyArgs),
    /// Print all queues, concerts, coupons and rewards as a file for `usher apply`
    ///
    /// Archived concerts are left out.
    Export(OperatorArgs),
    /// Print the calls of the admin API that may have changed something
    AdminLog {
        /// Number of calls to print, newest last
        #[arg(long, value_name = "COUNT", default_value_t = 100)]
        newest: u32,
        #[command(flatten)]
        mysql: MysqlArgs,
    },
    /// Show the queues, sales and outbox writer of an instance in the terminal
    ///
    /// It reads the admin listener every second until Ctrl-C.
    Top(TopArgs),
    /// Check the settings
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Manage the keys that sign admission JWTs
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Print the OpenAPI document of the public listener
    Openapi {
        /// Print the document of the admin listener
        #[arg(long)]
        admin: bool,
    },
}

#[derive(Subcommand)]
pub(super) enum SeedCommand {
    /// Store a concert with 50 seats, its queue, a coupon and a reward
    ///
    /// Existing definitions stay unchanged.
    Demo(StoreArgs),
}

#[derive(Subcommand)]
pub(super) enum AuditCommand {
    /// Check the order, rate and lottery of one queue
    ///
    /// The exit code is 1 if the queue was not fair.
    Queue {
        /// Id of the queue
        queue: QueueId,
        #[command(flatten)]
        stores: Box<StoreArgs>,
    },
}

#[derive(Subcommand)]
pub(super) enum DeadLettersCommand {
    /// Print all dead letters
    List(MysqlArgs),
    /// Apply dead letters again, after their cause is fixed
    Retry {
        /// Retry only this dead letter, by its partition and number, such as 3:4711
        #[arg(long, value_name = "PARTITION:N", value_parser = parse_position)]
        only: Option<(u16, u64)>,
        #[command(flatten)]
        mysql: MysqlArgs,
    },
}

fn parse_position(text: &str) -> Result<(u16, u64), String> {
    let parts = text
        .split_once(':')
        .and_then(|(partition, n)| Some((partition.parse().ok()?, n.parse().ok()?)));
    parts.ok_or_else(|| "must be a partition and a number, such as 3:4711".to_owned())
}

#[derive(Subcommand)]
pub(super) enum ConfigCommand {
    /// Print the settings of `usher serve` and all errors in them
    ///
    /// Secrets are not printed, and nothing is started.
    Check {
        /// Also connect to Redis and MySQL and check whether they are usable
        #[arg(long)]
        connect: bool,
        #[command(flatten)]
        serve: Box<ServeArgs>,
    },
}

#[derive(Subcommand)]
pub(super) enum KeysCommand {
    /// Create a new signing key
    ///
    /// It is published immediately and signs from two minutes later, when every cache of public
    /// keys has it.
    Rotate(MysqlArgs),
}

fn operate((access, command): OperatorRequest) -> Result<PreparedCommand, InvalidSettings> {
    Ok(PreparedCommand::Operate(OperatorSettings::new(&access)?, Box::new(command)))
}

impl CliCommand {
    /// Validates the settings of the command. `root` and `matches` are for `config check`.
    pub(super) fn validate(
        self,
        root: &Command,
        matches: Option<&ArgMatches>,
    ) -> Result<PreparedCommand, InvalidSettings> {
        Ok(match self {
            Self::Serve(args) => PreparedCommand::Serve(Box::new(UsherConfig::new(&args)?)),
            Self::Dev(args) => PreparedCommand::Dev(Box::new(DevSettings::new(&args)?)),
            Self::Migrate(args) => PreparedCommand::Migrate(MigrateSettings::new(&args)?),
            Self::Seed(SeedCommand::Demo(args)) => {
                PreparedCommand::SeedDemo(StoreSettings::new(&args)?)
            }
            Self::Audit { scope: None, stores } => {
                PreparedCommand::Audit(StoreSettings::new(&stores)?)
            }
            Self::Audit { scope: Some(AuditCommand::Queue { queue, stores }), .. } => {
                PreparedCommand::AuditQueue(queue, StoreSettings::new(&stores)?)
            }
            Self::Archive { concert, stores } => {
                PreparedCommand::Archive(concert, StoreSettings::new(&stores)?)
            }
            Self::Recover { partition, stores } => {
                PreparedCommand::Recover(partition, StoreSettings::new(&stores)?)
            }
            Self::Repartition(args) => {
                let (stores, to) = StoreSettings::with_required_partitions(&args)?;
                PreparedCommand::Repartition(stores, to)
            }
            Self::DeadLetters(DeadLettersCommand::List(args)) => {
                PreparedCommand::ListDeadLetters(MysqlSettings::new(&args)?)
            }
            Self::DeadLetters(DeadLettersCommand::Retry { only, mysql }) => {
                PreparedCommand::RetryDeadLetters(only, MysqlSettings::new(&mysql)?)
            }
            Self::Queue(command) => operate(command.into_request())?,
            Self::User(command) => operate(command.into_request())?,
            Self::Reservation(command) => operate(command.into_request())?,
            Self::Schedule(command) => operate(command.into_request())?,
            Self::Job(command) => operate(command.into_request())?,
            Self::Apply(args) => operate(args.into_request())?,
            Self::Export(access) => operate((access, OperatorCommand::Export))?,
            Self::AdminLog { newest, mysql } => {
                PreparedCommand::AdminLog(newest, MysqlSettings::new(&mysql)?)
            }
            Self::Top(args) => PreparedCommand::Top(crate::config::top(&args)?),
            Self::Config(ConfigCommand::Check { connect, serve }) => {
                let command =
                    root.find_subcommand("config").and_then(|it| it.find_subcommand("check"));
                let matches = matches
                    .and_then(|it| it.subcommand()?.1.subcommand())
                    .map(|(_, matches)| matches);
                let outcome = UsherConfig::new(&serve).map(Box::new);
                let command = command.expect("clap parsed this command");
                PreparedCommand::CheckConfig(Box::new(SettingsCheck::new(
                    command, matches, outcome, connect,
                )))
            }
            Self::Keys(KeysCommand::Rotate(args)) => {
                PreparedCommand::RotateKeys(MysqlSettings::new(&args)?)
            }
            Self::Openapi { admin } => PreparedCommand::Openapi { admin },
        })
    }
}
