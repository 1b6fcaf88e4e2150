//! The command line. All settings are validated before a command starts.
//!
//! clap reads flags and environment variables; flags win.

mod config_check;

use std::io::Write;

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::app;
use crate::config::args::{DevArgs, MigrateArgs, ServeArgs, StoreArgs, TopArgs};
use crate::config::dev::DevSettings;
use crate::config::{InvalidSettings, MigrateSettings, StoreSettings, UsherConfig};
use crate::dev::top;
use crate::ids::{ConcertId, QueueId};
use crate::telemetry::log;

/// Admission and booking for sales with far more buyers than seats
///
/// Usher queues the users of a sale, admits them at a set rate, and sells seats to them. It keeps
/// live state in Redis and stores everything in MySQL.
///
/// Every option can also be set with the environment variable in its help. Flags win.
#[derive(Parser)]
#[command(name = "usher", version, arg_required_else_help = true)]
pub struct CommandLine {
    #[command(subcommand)]
    command: CliCommand,
    /// Format of the log: text or json. RUST_LOG sets the levels
    #[arg(
        long,
        env = "USHER_LOG",
        hide_env_values = true,
        global = true,
        value_name = "FORMAT",
        default_value = "text"
    )]
    log: String,
    /// The raw matches, for `config check`.
    #[arg(skip)]
    matches: Option<ArgMatches>,
}

#[derive(Subcommand)]
enum CliCommand {
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
    /// Print the calls of the admin API that may have changed something
    AdminLog {
        /// Number of calls to print, newest last
        #[arg(long, value_name = "COUNT", default_value_t = 100)]
        newest: u32,
        #[command(flatten)]
        mysql: MigrateArgs,
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
enum SeedCommand {
    /// Store a concert with 50 seats, its queue, a coupon and a reward
    ///
    /// Existing definitions stay unchanged.
    Demo(StoreArgs),
}

#[derive(Subcommand)]
enum AuditCommand {
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
enum DeadLettersCommand {
    /// Print all dead letters
    List(MigrateArgs),
    /// Apply dead letters again, after their cause is fixed
    Retry {
        /// Retry only this dead letter, by its partition and number, such as 3:4711
        #[arg(long, value_name = "PARTITION:N", value_parser = parse_position)]
        only: Option<(u16, u64)>,
        #[command(flatten)]
        mysql: MigrateArgs,
    },
}

fn parse_position(text: &str) -> Result<(u16, u64), String> {
    let parts = text
        .split_once(':')
        .and_then(|(partition, n)| Some((partition.parse().ok()?, n.parse().ok()?)));
    parts.ok_or_else(|| "must be a partition and a number, such as 3:4711".to_owned())
}

#[derive(Subcommand)]
enum ConfigCommand {
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
enum KeysCommand {
    /// Create a new signing key
    ///
    /// It is published immediately and signs from two minutes later, when every cache of public
    /// keys has it.
    Rotate(MigrateArgs),
}

/// A command with validated settings.
#[derive(Debug)]
pub enum PreparedCommand {
    /// `usher serve`
    Serve(Box<UsherConfig>),
    /// `usher dev`
    Dev(Box<DevSettings>),
    /// `usher migrate`
    Migrate(MigrateSettings),
    /// `usher seed demo`
    SeedDemo(StoreSettings),
    /// `usher audit`
    Audit(StoreSettings),
    /// `usher audit queue`
    AuditQueue(QueueId, StoreSettings),
    /// `usher archive`
    Archive(ConcertId, StoreSettings),
    /// `usher recover`
    Recover(Option<u16>, StoreSettings),
    /// `usher repartition`
    Repartition(StoreSettings),
    /// `usher dead-letters list`
    ListDeadLetters(MigrateSettings),
    /// `usher dead-letters retry`
    RetryDeadLetters(Option<(u16, u64)>, MigrateSettings),
    /// `usher admin-log`
    AdminLog(u32, MigrateSettings),
    /// `usher top`
    Top(top::TopSettings),
    /// `usher config check`
    CheckConfig(Box<config_check::SettingsCheck>),
    /// `usher keys rotate`
    RotateKeys(MigrateSettings),
    /// `usher openapi`
    Openapi { admin: bool },
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Settings(#[from] InvalidSettings),
    #[error("USHER_LOG (--log): must be text or json")]
    LogFormat,
    #[error(transparent)]
    Log(#[from] log::Error),
    #[cfg(feature = "failpoints")]
    #[error(transparent)]
    FailPoints(#[from] crate::failpoint::Error),
}

impl CommandLine {
    /// Parses flags and environment variables. Exits the process with a message if they are
    /// invalid.
    pub fn parse_or_exit() -> Self {
        let matches = Self::command().get_matches();
        let mut cli = Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
        cli.matches = Some(matches);
        cli
    }

    /// Starts the log and validates the settings of the command.
    ///
    /// # Errors
    /// All invalid settings, by name.
    pub fn prepare(self) -> Result<PreparedCommand, Error> {
        let format = match self.log.trim() {
            "" | "text" => log::LogFormat::Text,
            "json" => log::LogFormat::Json,
            _ => return Err(Error::LogFormat),
        };
        log::init(format, std::env::var("RUST_LOG").ok().as_deref())?;
        #[cfg(feature = "failpoints")]
        crate::failpoint::configure(crate::redis::LuaScript::names())?;
        let prepared = self.command.validate(self.matches.as_ref())?;
        if let PreparedCommand::Serve(config) = &prepared {
            for warning in &config.warnings {
                tracing::warn!("{warning}");
            }
        }
        Ok(prepared)
    }
}

impl CliCommand {
    fn validate(self, matches: Option<&ArgMatches>) -> Result<PreparedCommand, InvalidSettings> {
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
                PreparedCommand::Repartition(StoreSettings::with_required_partitions(&args)?)
            }
            Self::DeadLetters(DeadLettersCommand::List(args)) => {
                PreparedCommand::ListDeadLetters(MigrateSettings::new(&args)?)
            }
            Self::DeadLetters(DeadLettersCommand::Retry { only, mysql }) => {
                PreparedCommand::RetryDeadLetters(only, MigrateSettings::new(&mysql)?)
            }
            Self::AdminLog { newest, mysql } => {
                PreparedCommand::AdminLog(newest, MigrateSettings::new(&mysql)?)
            }
            Self::Top(args) => PreparedCommand::Top(crate::config::top(&args)?),
            Self::Config(ConfigCommand::Check { connect, serve }) => {
                let root = CommandLine::command();
                let command =
                    root.find_subcommand("config").and_then(|it| it.find_subcommand("check"));
                let matches = matches
                    .and_then(|it| it.subcommand()?.1.subcommand())
                    .map(|(_, matches)| matches);
                let outcome = UsherConfig::new(&serve).map(Box::new);
                let command = command.expect("clap parsed this command");
                PreparedCommand::CheckConfig(Box::new(config_check::SettingsCheck::new(
                    command, matches, outcome, connect,
                )))
            }
            Self::Keys(KeysCommand::Rotate(args)) => {
                PreparedCommand::RotateKeys(MigrateSettings::new(&args)?)
            }
            Self::Openapi { admin } => PreparedCommand::Openapi { admin },
        })
    }
}

impl PreparedCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// Why the command failed.
    pub async fn run(self) -> Result<(), app::Error> {
        match self {
            Self::Serve(config) => app::serve(*config).await,
            Self::Dev(settings) => app::dev(*settings).await,
            Self::Migrate(settings) => app::migrate(&settings).await,
            Self::SeedDemo(stores) => app::seed_demo(&stores).await,
            Self::Audit(stores) => require_passed(app::audit(&stores).await?),
            Self::AuditQueue(queue, stores) => {
                require_passed(app::audit_queue(&stores, &queue).await?)
            }
            Self::Archive(concert, stores) => app::archive(&stores, &concert).await,
            Self::Recover(partition, stores) => app::recover(&stores, partition).await,
            Self::Repartition(stores) => require_passed(Box::pin(app::repartition(&stores)).await?),
            Self::ListDeadLetters(settings) => app::list_dead_letters(&settings).await,
            Self::RetryDeadLetters(only, settings) => {
                app::retry_dead_letters(&settings, only).await
            }
            Self::AdminLog(newest, settings) => app::print_admin_log(&settings, newest).await,
            Self::Top(settings) => Ok(top::run(&settings).await?),
            Self::CheckConfig(check) => check.run().await,
            Self::RotateKeys(settings) => app::rotate_keys(&settings).await,
            Self::Openapi { admin } => {
                let document = if admin { app::admin_document() } else { app::public_document() };
                let text = document.to_pretty_json().map_err(std::io::Error::from);
                text.and_then(|text| writeln!(std::io::stdout(), "{text}"))
                    .map_err(app::Error::Output)
            }
        }
    }
}

fn require_passed(passed: bool) -> Result<(), app::Error> {
    if passed { Ok(()) } else { Err(app::Error::AuditFailed) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::flag;
    use clap::CommandFactory;

    fn prepare(line: &str) -> Result<PreparedCommand, String> {
        let cli =
            CommandLine::try_parse_from(line.split(' ')).map_err(|error| error.to_string())?;
        cli.command.validate(None).map_err(|error| error.to_string())
    }

    #[test]
    fn grammar_is_valid_and_every_flag_matches_its_variable() {
        let mut commands = vec![CommandLine::command()];
        CommandLine::command().debug_assert();
        while let Some(command) = commands.pop() {
            for argument in command.get_arguments() {
                let Some(variable) = argument.get_env().and_then(|name| name.to_str()) else {
                    continue;
                };
                assert_eq!(flag(variable), format!("--{}", argument.get_long().unwrap()));
                assert!(
                    argument.is_hide_env_values_set(),
                    "{variable}: the help must not show its value"
                );
            }
            commands.extend(command.get_subcommands().cloned());
        }
    }

    #[test]
    fn commands_are_parsed() {
        assert!(matches!(
            prepare("usher openapi --admin"),
            Ok(PreparedCommand::Openapi { admin: true })
        ));
        assert!(matches!(prepare("usher openapi"), Ok(PreparedCommand::Openapi { admin: false })));
        assert!(matches!(
            prepare("usher migrate --mysql-url mysql://h/d"),
            Ok(PreparedCommand::Migrate(_))
        ));
        assert!(matches!(
            prepare("usher seed demo --mysql-url mysql://h/d --redis-url redis://h"),
            Ok(PreparedCommand::SeedDemo(_))
        ));
        assert!(matches!(
            prepare("usher archive show --mysql-url mysql://h/d --redis-url redis://h"),
            Ok(PreparedCommand::Archive(..))
        ));
        let stores = "--mysql-url mysql://h/d --redis-url redis://h";
        let recover =
            prepare("usher recover --partition 7 --mysql-url mysql://h/d --redis-url redis://h");
        assert!(matches!(recover, Ok(PreparedCommand::Recover(Some(7), _))));
        assert!(matches!(
            prepare(&format!("usher repartition --partitions 16 {stores}")),
            Ok(PreparedCommand::Repartition(stores)) if stores.partitions.count() == 16
        ));
        assert!(matches!(prepare(&format!("usher audit {stores}")), Ok(PreparedCommand::Audit(_))));
        assert!(matches!(
            prepare(&format!("usher audit queue show {stores}")),
            Ok(PreparedCommand::AuditQueue(..))
        ));
        assert!(matches!(
            prepare("usher dead-letters list --mysql-url mysql://h/d"),
            Ok(PreparedCommand::ListDeadLetters(_))
        ));
        assert!(matches!(
            prepare("usher dead-letters retry --only 3:4711 --mysql-url mysql://h/d"),
            Ok(PreparedCommand::RetryDeadLetters(Some((3, 4711)), _))
        ));
        assert!(prepare("usher dead-letters retry --only 3 --mysql-url mysql://h/d").is_err());
        assert!(matches!(
            prepare("usher top --once"),
            Ok(PreparedCommand::Top(top::TopSettings { once: true, .. }))
        ));
        assert!(matches!(
            prepare("usher dev --log json --listen 127.0.0.1:0"),
            Ok(PreparedCommand::Dev(_))
        ));
        for bad in ["usher", "usher fly", "usher seed", "usher serve --colour red"] {
            assert!(prepare(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn invalid_settings_are_reported_by_name() {
        let error = prepare("usher dev --drain-seconds soon --listen here").unwrap_err();
        assert!(error.contains("USHER_LISTEN (--listen)"), "{error}");
        assert!(error.contains("USHER_DRAIN_SECONDS (--drain-seconds)"), "{error}");
    }
}
