//! `usher config check`: what `usher serve` would run on, and what is wrong with it.
//!
//! The list is made from the command line's own grammar, so a setting can't be left out of it, and what is secret goes by the setting's name: a new one is
//! hidden by default once it is called a key, a secret, a password or a token.

use std::io::Write;

use clap::parser::ValueSource;
use clap::{ArgMatches, Command};

use crate::app;
use crate::config::{InvalidSettings, UsherConfig};

/// How the name of a setting ends that holds a secret. A path to one is hidden, too: nothing is lost by that.
const SECRETS: [&str; 6] = ["_KEY", "_KEYS", "_SECRET", "_SECRETS", "_PASSWORD", "_TOKEN"];

/// What was found out about the settings.
#[derive(Debug)]
pub struct SettingsCheck {
    lines: Vec<String>,
    outcome: Result<Box<UsherConfig>, InvalidSettings>,
    connect: bool,
}

impl SettingsCheck {
    /// `command` is the grammar, `matches` what was read by it.
    pub(super) fn new(
        command: &Command,
        matches: Option<&ArgMatches>,
        outcome: Result<Box<UsherConfig>, InvalidSettings>,
        connect: bool,
    ) -> Self {
        Self { lines: lines(command, matches), outcome, connect }
    }

    /// Prints it, and asks the stores if that is wanted.
    ///
    /// # Errors
    /// What is wrong with the settings, or what kept the stores from being used.
    pub(super) async fn run(self) -> Result<(), app::Error> {
        let mut out = std::io::stdout();
        let mut say = |line: &str| writeln!(out, "{line}").map_err(app::Error::Output);
        for line in &self.lines {
            say(line)?;
        }
        let config = self.outcome?;
        for warning in &config.warnings {
            say(&format!("second look: {warning}"))?;
        }
        if self.connect {
            app::reach(&config.stores).await?;
            say("Redis and MySQL can be used")?;
        }
        say("the settings are good")
    }
}

/// A line for each setting that has a variable, in the order of the help.
fn lines(command: &Command, matches: Option<&ArgMatches>) -> Vec<String> {
    let settings = command.get_arguments().filter_map(|argument| {
        let name = argument.get_env()?.to_str()?;
        let id = argument.get_id().as_str();
        let given = matches.and_then(|matches| matches.try_get_one::<String>(id).ok().flatten());
        let source = matches.and_then(|matches| matches.value_source(id));
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
        let default = help.split_once("[default: ").and_then(|(_, rest)| rest.split(']').next());
        Some(match (given.map(|value| value.trim()).filter(|value| !value.is_empty()), default) {
            (Some(value), _) => {
                let from =
                    if source == Some(ValueSource::CommandLine) { "flag" } else { "environment" };
                format!("{name} = {} ({from})", shown(name, value))
            }
            (None, Some(default)) => format!("{name} = {default} (default)"),
            (None, None) => format!("{name} is not given"),
        })
    });
    settings.collect()
}

/// A value without what is secret in it.
fn shown(name: &str, value: &str) -> String {
    if SECRETS.iter().any(|end| name.ends_with(end)) {
        return "(not shown)".to_owned();
    }
    // Whatever looks like a URL may hold a password before its host, or among its parameters.
    let Some((scheme, rest)) = value.split_once("://") else {
        return if name.ends_with("_URL") { "(not shown)".to_owned() } else { value.to_owned() };
    };
    let rest = match rest.rsplit_once('@') {
        Some((_, host)) => format!("…@{host}"),
        None => rest.to_owned(),
    };
    match rest.split_once('?') {
        Some((place, _)) => format!("{scheme}://{place}?…"),
        None => format!("{scheme}://{rest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn told(line: &str) -> Vec<String> {
        let command = super::super::CommandLine::command();
        let matches = command.clone().try_get_matches_from(line.split(' ')).unwrap();
        let (_, config) = matches.subcommand().unwrap();
        let (_, check) = config.subcommand().unwrap();
        let grammar =
            command.find_subcommand("config").and_then(|it| it.find_subcommand("check")).unwrap();
        lines(grammar, Some(check))
    }

    #[test]
    fn every_setting_of_serve_is_told() {
        let command = super::super::CommandLine::command();
        let serve = command.find_subcommand("serve").unwrap();
        let names = serve.get_arguments().filter_map(|argument| argument.get_env()?.to_str());
        let told = told("usher config check --listen 127.0.0.1:1 --partitions 8");
        for name in names {
            assert_eq!(
                told.iter().filter(|line| line.split(' ').next() == Some(name)).count(),
                1,
                "{name}: {told:?}"
            );
        }
        assert!(told.contains(&"USHER_LISTEN = 127.0.0.1:1 (flag)".to_owned()), "{told:?}");
        assert!(told.iter().any(|line| line.starts_with("USHER_ACK = accepted (")), "{told:?}");
    }

    #[test]
    fn secrets_are_not() {
        let told = told(
            "usher config check --admin-key canary1 --token-keys k1:canary2 --service-keys canary3 --jwt-key canary4 \
             --redis-url redis://usher:canary5@host:1/2 --mysql-url mysql://u:canary6/@:x@host/db?password=canary7",
        );
        let told = told.join("\n");
        assert!(!told.contains("canary"), "{told}");
        assert!(told.contains("USHER_REDIS_URL = redis://…@host:1/2 (flag)"), "{told}");
        assert!(told.contains("USHER_MYSQL_URL = mysql://…@host/db?… (flag)"), "{told}");
        assert_eq!(shown("USHER_REDIS_URL", "canary8"), "(not shown)");
    }
}
