//! The command line: what can be asked of the binary, checked before anything is started.
//!
//! clap reads flags and environment by itself, flags first, so no layer of configuration stands between the two.

mod settings;

use std::io::Write;

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::app;
use crate::config::args::{DevArgs, MigrateArgs, ServeArgs, StoreArgs, TopArgs};
use crate::config::dev::DevSettings;
use crate::config::{InvalidSettings, MigrateSettings, StoreSettings, UsherConfig};
use crate::ids::{ConcertId, QueueId};
use crate::telemetry::log;
use crate::top;

/// Admission and booking for the minute when far more people come than there are seats.
#[derive(Parser)]
#[command(name = "usher", version, arg_required_else_help = true)]
pub struct CommandLine {
    #[command(subcommand)]
    command: CliCommand,
    /// How the log looks: text or json; its levels are those of RUST_LOG
    #[arg(
        long,
        env = "USHER_LOG",
        hide_env_values = true,
        global = true,
        value_name = "FORMAT",
        default_value = "text"
    )]
    log: String,
    /// What was read, by the names of flags.
    #[arg(skip)]
    matches: Option<ArgMatches>,
}

#[derive(Subcommand)]
enum CliCommand {
    /// Serve on the given Redis and MySQL
    Serve(Box<ServeArgs>),
    /// Serve on private Redis and MySQL-compatible servers that are started for it, with demo data
    Dev(Box<DevArgs>),
    /// Bring the MySQL schema up to date
    Migrate(MigrateArgs),
    /// Put data in
    #[command(subcommand)]
    Seed(SeedCommand),
    /// Check what was promised against what is there, over both stores
    #[command(args_conflicts_with_subcommands = true)]
    Audit {
        #[command(subcommand)]
        of: Option<AuditCommand>,
        #[command(flatten)]
        stores: Box<StoreArgs>,
    },
    /// End the sale of a concert for good and clear it out of Redis; its rows stay
    Archive {
        /// The concert
        concert: ConcertId,
        #[command(flatten)]
        stores: StoreArgs,
    },
    /// Lay Redis back from MySQL where it is empty, older or somebody else's; instances may be running
    Recover {
        /// Only this partition, and also if it serves: its holds and places in line are lost
        #[arg(long, value_name = "NUMBER")]
        partition: Option<u16>,
        #[command(flatten)]
        stores: StoreArgs,
    },
    /// Make USHER_PARTITIONS the count of partitions, while no instance runs: Redis is laid anew from MySQL; holds are lost
    Repartition(StoreArgs),
    /// Events that MySQL refused and that were put aside
    #[command(subcommand)]
    DeadLetters(DeadLettersCommand),
    /// Print who did what by the admin API
    AdminLog {
        /// How many of the newest lines
        #[arg(long, value_name = "COUNT", default_value_t = 100)]
        newest: u32,
        #[command(flatten)]
        mysql: MigrateArgs,
    },
    /// Show an instance's queues, sales and writer in the terminal, every second until Ctrl-C
    Top(TopArgs),
    /// The settings
    #[command(subcommand)]
    Config(ConfigCommand),
    /// The keys that sign passes
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Print the OpenAPI document of the public listener
    Openapi {
        /// That of the admin listener instead
        #[arg(long)]
        admin: bool,
    },
}

#[derive(Subcommand)]
enum SeedCommand {
    /// A concert of fifty seats, its queue, a coupon and a reward
    Demo(StoreArgs),
}

#[derive(Subcommand)]
enum AuditCommand {
    /// The order, the rate and the lottery of one line
    Queue {
        /// The queue
        queue: QueueId,
        #[command(flatten)]
        stores: Box<StoreArgs>,
    },
}

#[derive(Subcommand)]
enum DeadLettersCommand {
    /// Print them
    List(MigrateArgs),
    /// Apply them again, once their cause is gone
    Retry {
        /// Only this one: its partition and number, as in 3:4711
        #[arg(long, value_name = "PARTITION:N", value_parser = letter)]
        only: Option<(u16, u64)>,
        #[command(flatten)]
        mysql: MigrateArgs,
    },
}

fn letter(text: &str) -> Result<(u16, u64), String> {
    let parts = text
        .split_once(':')
        .and_then(|(partition, n)| Some((partition.parse().ok()?, n.parse().ok()?)));
    parts.ok_or_else(|| "must be a partition and a number, as in 3:4711".to_owned())
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Print what `usher serve` would run on, without secrets, and everything that is wrong; starts nothing
    Check {
        /// Ask Redis and MySQL, too, whether they can be used
        #[arg(long)]
        connect: bool,
        #[command(flatten)]
        serve: Box<ServeArgs>,
    },
}

#[derive(Subcommand)]
enum KeysCommand {
    /// Make a new key: published at once, in use two minutes later
    Rotate(MigrateArgs),
}

/// A command with its settings checked.
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
    CheckConfig(Box<settings::SettingsCheck>),
    /// `usher keys rotate`
    RotateKeys(MigrateSettings),
    /// `usher openapi`
    Openapi {
        /// The admin listener's.
        admin: bool,
    },
}

/// Why a command did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Settings are wrong.
    #[error(transparent)]
    Settings(#[from] InvalidSettings),
    /// The log's format is not known.
    #[error("USHER_LOG (--log): must be text or json")]
    LogFormat,
    /// The log could not be started.
    #[error(transparent)]
    Log(#[from] log::Error),
    /// The fail points could not be set.
    #[cfg(feature = "failpoints")]
    #[error(transparent)]
    FailPoints(#[from] crate::failpoint::Error),
}

impl CommandLine {
    /// Reads flags and environment; ends the process where they can't be read.
    pub fn read() -> Self {
        let matches = Self::command().get_matches();
        let mut cli = Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
        cli.matches = Some(matches);
        cli
    }

    /// Starts the log and checks the command's settings.
    ///
    /// # Errors
    /// Everything that is wrong with the settings, by their names.
    pub fn prepare(self) -> Result<PreparedCommand, Error> {
        let format = match self.log.trim() {
            "" | "text" => log::LogFormat::Text,
            "json" => log::LogFormat::Json,
            _ => return Err(Error::LogFormat),
        };
        log::init(format, std::env::var("RUST_LOG").ok().as_deref())?;
        #[cfg(feature = "failpoints")]
        crate::failpoint::arm(crate::redis::LuaScript::names())?;
        let job = self.command.check(self.matches.as_ref())?;
        if let PreparedCommand::Serve(config) = &job {
            for warning in &config.warnings {
                tracing::warn!("{warning}");
            }
        }
        Ok(job)
    }
}

impl CliCommand {
    fn check(self, matches: Option<&ArgMatches>) -> Result<PreparedCommand, InvalidSettings> {
        Ok(match self {
            Self::Serve(args) => PreparedCommand::Serve(Box::new(UsherConfig::new(&args)?)),
            Self::Dev(args) => PreparedCommand::Dev(Box::new(DevSettings::new(&args)?)),
            Self::Migrate(args) => PreparedCommand::Migrate(MigrateSettings::new(&args)?),
            Self::Seed(SeedCommand::Demo(args)) => {
                PreparedCommand::SeedDemo(StoreSettings::new(&args)?)
            }
            Self::Audit { of: None, stores } => {
                PreparedCommand::Audit(StoreSettings::new(&stores)?)
            }
            Self::Audit { of: Some(AuditCommand::Queue { queue, stores }), .. } => {
                PreparedCommand::AuditQueue(queue, StoreSettings::new(&stores)?)
            }
            Self::Archive { concert, stores } => {
                PreparedCommand::Archive(concert, StoreSettings::new(&stores)?)
            }
            Self::Recover { partition, stores } => {
                PreparedCommand::Recover(partition, StoreSettings::new(&stores)?)
            }
            Self::Repartition(args) => {
                PreparedCommand::Repartition(StoreSettings::with_count(&args)?)
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
                let grammar = CommandLine::command();
                let grammar =
                    grammar.find_subcommand("config").and_then(|it| it.find_subcommand("check"));
                let matches = matches
                    .and_then(|it| it.subcommand()?.1.subcommand())
                    .map(|(_, matches)| matches);
                let outcome = UsherConfig::new(&serve).map(Box::new);
                let grammar = grammar.expect("the command that was read");
                PreparedCommand::CheckConfig(Box::new(settings::SettingsCheck::new(
                    grammar, matches, outcome, connect,
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
    /// Runs the command to its end.
    ///
    /// # Errors
    /// What stopped it.
    pub async fn run(self) -> Result<(), app::Error> {
        match self {
            Self::Serve(config) => app::serve(*config).await,
            Self::Dev(settings) => app::dev(*settings).await,
            Self::Migrate(settings) => app::migrate(&settings).await,
            Self::SeedDemo(stores) => app::seed_demo(&stores).await,
            Self::Audit(stores) => sound(app::audit(&stores).await?),
            Self::AuditQueue(queue, stores) => sound(app::audit_queue(&stores, &queue).await?),
            Self::Archive(concert, stores) => app::archive(&stores, &concert).await,
            Self::Recover(partition, stores) => app::recover(&stores, partition).await,
            Self::Repartition(stores) => sound(Box::pin(app::repartition(&stores)).await?),
            Self::ListDeadLetters(settings) => app::list_dead_letters(&settings).await,
            Self::RetryDeadLetters(only, settings) => {
                app::retry_dead_letters(&settings, only).await
            }
            Self::AdminLog(newest, settings) => app::print_admin_log(&settings, newest).await,
            Self::Top(settings) => Ok(top::run(&settings).await?),
            Self::CheckConfig(checked) => checked.run().await,
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

fn sound(sound: bool) -> Result<(), app::Error> {
    if sound { Ok(()) } else { Err(app::Error::Unsound) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::flag;
    use clap::CommandFactory;

    fn job(line: &str) -> Result<PreparedCommand, String> {
        let cli =
            CommandLine::try_parse_from(line.split(' ')).map_err(|error| error.to_string())?;
        cli.command.check(None).map_err(|error| error.to_string())
    }

    #[test]
    fn the_grammar_is_sound_and_every_flag_has_the_name_of_its_variable() {
        let mut commands = vec![CommandLine::command()];
        CommandLine::command().debug_assert();
        while let Some(command) = commands.pop() {
            for argument in command.get_arguments() {
                let Some(variable) = argument.get_env().and_then(|name| name.to_str()) else {
                    continue;
                };
                assert_eq!(flag(variable), format!("--{}", argument.get_long().unwrap()));
                assert!(argument.is_hide_env_values_set(), "{variable}: help must not show it");
            }
            commands.extend(command.get_subcommands().cloned());
        }
    }

    #[test]
    fn commands_are_understood() {
        assert!(matches!(
            job("usher openapi --admin"),
            Ok(PreparedCommand::Openapi { admin: true })
        ));
        assert!(matches!(job("usher openapi"), Ok(PreparedCommand::Openapi { admin: false })));
        assert!(matches!(
            job("usher migrate --mysql-url mysql://h/d"),
            Ok(PreparedCommand::Migrate(_))
        ));
        assert!(matches!(
            job("usher seed demo --mysql-url mysql://h/d --redis-url redis://h"),
            Ok(PreparedCommand::SeedDemo(_))
        ));
        assert!(matches!(
            job("usher archive show --mysql-url mysql://h/d --redis-url redis://h"),
            Ok(PreparedCommand::Archive(..))
        ));
        let recover =
            job("usher recover --partition 7 --mysql-url mysql://h/d --redis-url redis://h");
        assert!(matches!(recover, Ok(PreparedCommand::Recover(Some(7), _))));
        assert!(matches!(
            job("usher repartition --partitions 16 --mysql-url mysql://h/d --redis-url redis://h"),
            Ok(PreparedCommand::Repartition(stores)) if stores.partitions.count() == 16
        ));
        let stores = "--mysql-url mysql://h/d --redis-url redis://h";
        assert!(matches!(job(&format!("usher audit {stores}")), Ok(PreparedCommand::Audit(_))));
        assert!(matches!(
            job(&format!("usher audit queue show {stores}")),
            Ok(PreparedCommand::AuditQueue(..))
        ));
        assert!(matches!(
            job("usher dead-letters list --mysql-url mysql://h/d"),
            Ok(PreparedCommand::ListDeadLetters(_))
        ));
        assert!(matches!(
            job("usher dead-letters retry --only 3:4711 --mysql-url mysql://h/d"),
            Ok(PreparedCommand::RetryDeadLetters(Some((3, 4711)), _))
        ));
        assert!(job("usher dead-letters retry --only 3 --mysql-url mysql://h/d").is_err());
        assert!(matches!(
            job("usher top --once"),
            Ok(PreparedCommand::Top(top::TopSettings { once: true, .. }))
        ));
        assert!(matches!(
            job("usher dev --log json --listen 127.0.0.1:0"),
            Ok(PreparedCommand::Dev(_))
        ));
        for bad in ["usher", "usher fly", "usher seed", "usher serve --colour red"] {
            assert!(job(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn wrong_settings_are_told_by_name() {
        let error = job("usher dev --drain-seconds soon --listen here").unwrap_err();
        assert!(error.contains("USHER_LISTEN (--listen)"), "{error}");
        assert!(error.contains("USHER_DRAIN_SECONDS (--drain-seconds)"), "{error}");
    }
}
