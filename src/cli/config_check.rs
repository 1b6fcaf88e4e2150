//! `usher config check`: prints the settings of `usher serve` and their errors.
//!
//! The list comes from clap's definition of the command, so no setting can be missing. A setting
//! counts as secret by its name: key, secret, password or token.

use std::io::Write;

use clap::parser::ValueSource;
use clap::{ArgMatches, Command};

use crate::app;
use crate::config::{InvalidSettings, UsherConfig};

/// Suffixes of settings with secrets. Some of them may also be paths, which are hidden too.
const SECRET_SUFFIXES: [&str; 6] = ["_KEY", "_KEYS", "_SECRET", "_SECRETS", "_PASSWORD", "_TOKEN"];

#[derive(Debug)]
pub struct SettingsCheck {
    lines: Vec<String>,
    outcome: Result<Box<UsherConfig>, InvalidSettings>,
    connect: bool,
}

impl SettingsCheck {
    /// `command` defines the settings, `matches` has their values.
    pub(super) fn new(
        command: &Command,
        matches: Option<&ArgMatches>,
        outcome: Result<Box<UsherConfig>, InvalidSettings>,
        connect: bool,
    ) -> Self {
        Self { lines: setting_lines(command, matches), outcome, connect }
    }

    /// Prints the result, and checks the stores if requested.
    ///
    /// # Errors
    /// The invalid settings, or why a store is not usable.
    pub(super) async fn run(self) -> Result<(), app::Error> {
        let mut out = std::io::stdout();
        let mut print = |line: &str| writeln!(out, "{line}").map_err(app::Error::Output);
        for line in &self.lines {
            print(line)?;
        }
        let config = self.outcome?;
        for warning in &config.warnings {
            print(&format!("warning: {warning}"))?;
        }
        if self.connect {
            let clocks = app::check_stores(&config.stores).await?;
            print("Redis and MySQL are usable")?;
            print(&clocks)?;
        }
        print("the settings are valid")
    }
}

/// One line per setting, in the order of the help.
fn setting_lines(command: &Command, matches: Option<&ArgMatches>) -> Vec<String> {
    let settings = command.get_arguments().filter_map(|argument| {
        let name = argument.get_env()?.to_str()?;
        let id = argument.get_id().as_str();
        let given = matches.and_then(|matches| matches.try_get_one::<String>(id).ok().flatten());
        let source = matches.and_then(|matches| matches.value_source(id));
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
        let default = help.split_once("[default: ").and_then(|(_, rest)| rest.split(']').next());
        Some(match (given.map(|value| value.trim()).filter(|value| !value.is_empty()), default) {
            (Some(value), _) => {
                let origin =
                    if source == Some(ValueSource::CommandLine) { "flag" } else { "environment" };
                format!("{name} = {} ({origin})", redacted(name, value))
            }
            (None, Some(default)) => format!("{name} = {default} (default)"),
            (None, None) => format!("{name} is not set"),
        })
    });
    settings.collect()
}

/// The value without secrets.
fn redacted(name: &str, value: &str) -> String {
    if SECRET_SUFFIXES.iter().any(|suffix| name.ends_with(suffix)) {
        return "(hidden)".to_owned();
    }
    // A URL may contain a password before its host or in its parameters.
    let Some((scheme, rest)) = value.split_once("://") else {
        return if name.ends_with("_URL") { "(hidden)".to_owned() } else { value.to_owned() };
    };
    let rest = match rest.rsplit_once('@') {
        Some((_, host)) => format!("…@{host}"),
        None => rest.to_owned(),
    };
    match rest.split_once('?') {
        Some((base, _)) => format!("{scheme}://{base}?…"),
        None => format!("{scheme}://{rest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn lines_of(line: &str) -> Vec<String> {
        let command = super::super::CommandLine::command();
        let matches = command.clone().try_get_matches_from(line.split(' ')).unwrap();
        let (_, config) = matches.subcommand().unwrap();
        let (_, check) = config.subcommand().unwrap();
        let grammar =
            command.find_subcommand("config").and_then(|it| it.find_subcommand("check")).unwrap();
        setting_lines(grammar, Some(check))
    }

    #[test]
    fn every_setting_of_serve_is_printed() {
        let command = super::super::CommandLine::command();
        let serve = command.find_subcommand("serve").unwrap();
        let names = serve.get_arguments().filter_map(|argument| argument.get_env()?.to_str());
        let lines = lines_of("usher config check --listen 127.0.0.1:1 --partitions 8");
        for name in names {
            assert_eq!(
                lines.iter().filter(|line| line.split(' ').next() == Some(name)).count(),
                1,
                "{name}: {lines:?}"
            );
        }
        assert!(lines.contains(&"USHER_LISTEN = 127.0.0.1:1 (flag)".to_owned()), "{lines:?}");
        assert!(lines.iter().any(|line| line.starts_with("USHER_ACK = accepted (")), "{lines:?}");
    }

    #[test]
    fn secrets_are_hidden() {
        let lines = lines_of(
            "usher config check --admin-key canary1 --token-keys k1:canary2 \
             --service-keys canary3 --jwt-key canary4 \
             --redis-url redis://usher:canary5@host:1/2 \
             --mysql-url mysql://u:canary6/@:x@host/db?password=canary7",
        );
        let lines = lines.join("\n");
        assert!(!lines.contains("canary"), "{lines}");
        assert!(lines.contains("USHER_REDIS_URL = redis://…@host:1/2 (flag)"), "{lines}");
        assert!(lines.contains("USHER_MYSQL_URL = mysql://…@host/db?… (flag)"), "{lines}");
        assert_eq!(redacted("USHER_REDIS_URL", "canary8"), "(hidden)");
    }
}
