//! The command line. All settings are validated before a command starts.
//!
//! clap reads flags and environment variables; flags win.

mod commands;
mod config_check;
mod operator_commands;
mod prepared;
mod unknown_variables;

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser};

use crate::config::InvalidSettings;
use crate::telemetry::log;
use commands::CliCommand;
pub use prepared::PreparedCommand;
use unknown_variables::UnknownVariables;

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

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Settings(#[from] InvalidSettings),
    #[error(transparent)]
    UnknownVariables(#[from] UnknownVariables),
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
    /// All invalid settings, by name, and unknown variables whose names start with `USHER_`.
    pub fn prepare(self) -> Result<PreparedCommand, Error> {
        let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        if let Some(unknown) = UnknownVariables::find(&Self::command(), names) {
            return Err(unknown.into());
        }
        let format = match self.log.trim() {
            "" | "text" => log::LogFormat::Text,
            "json" => log::LogFormat::Json,
            _ => return Err(Error::LogFormat),
        };
        log::init(format, std::env::var("RUST_LOG").ok().as_deref())?;
        #[cfg(feature = "failpoints")]
        crate::failpoint::configure(crate::redis::LuaScript::names())?;
        let prepared = self.command.validate(&Self::command(), self.matches.as_ref())?;
        if let PreparedCommand::Serve(config) = &prepared {
            for warning in &config.warnings {
                tracing::warn!("{warning}");
            }
        }
        Ok(prepared)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::flag;
    use crate::dev::top;
    use clap::CommandFactory;

    fn prepare(line: &str) -> Result<PreparedCommand, String> {
        let cli =
            CommandLine::try_parse_from(line.split(' ')).map_err(|error| error.to_string())?;
        cli.command.validate(&CommandLine::command(), None).map_err(|error| error.to_string())
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
            Ok(PreparedCommand::Repartition(_, to)) if to.count() == 16
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
