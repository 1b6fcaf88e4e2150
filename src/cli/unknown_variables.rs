//! Variables in the environment that start with `USHER_` and are no setting: probably mistyped, so
//! that the setting would silently keep its default.

use std::collections::BTreeSet;
use std::fmt;

use clap::Command;

/// Read by `usher dev`, or by the clients, examples, tests and load tests of this repository.
const NOT_OF_THE_COMMAND_LINE: [&str; 8] = [
    "USHER_ADMIN",
    "USHER_BINARY",
    "USHER_DEV_MYSQLD",
    "USHER_DEV_REDIS_SERVER",
    "USHER_DEV_SERVER",
    "USHER_QUEUE",
    "USHER_URL",
    "USHER_WEB_FILES",
];

/// The least similarity, from 0 to 1, of a name that is suggested.
const MIN_SIMILARITY: f64 = 0.8;

/// Names that no setting has, each with the most similar setting.
#[derive(Debug, PartialEq, Eq)]
pub struct UnknownVariables(Vec<(String, Option<String>)>);

impl UnknownVariables {
    /// Finds them among the names in the environment. `command` defines the settings.
    pub(super) fn find(command: &Command, names: impl Iterator<Item = String>) -> Option<Self> {
        let known = settings(command);
        let unknown: Vec<_> = names
            .filter(|name| name.starts_with("USHER_") && !known.contains(name))
            .filter(|name| !is_foreign(name))
            .map(|name| {
                let similar = most_similar(&known, &name);
                (name, similar)
            })
            .collect();
        (!unknown.is_empty()).then_some(Self(unknown))
    }
}

impl fmt::Display for UnknownVariables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unknown settings in the environment:")?;
        self.0.iter().try_for_each(|(name, similar)| match similar {
            Some(similar) => write!(f, "\n  {name}: did you mean {similar}?"),
            None => write!(f, "\n  {name}: no setting has a similar name"),
        })
    }
}

impl std::error::Error for UnknownVariables {}

fn settings(command: &Command) -> BTreeSet<String> {
    let own = command.get_arguments().filter_map(|argument| argument.get_env()?.to_str());
    let mut all: BTreeSet<String> = own.map(str::to_owned).collect();
    all.extend(command.get_subcommands().flat_map(settings));
    all
}

/// Kubernetes sets variables for each service of the namespace, also for one that is called
/// `usher`: <https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables>.
fn is_foreign(name: &str) -> bool {
    let is_of_kubernetes = name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.ends_with("_PORT")
        || ["_TCP", "_UDP", "_SCTP"].iter().any(|protocol| {
            name.split_once(protocol).is_some_and(|(port, rest)| {
                port.rsplit('_').next().is_some_and(|port| port.parse::<u16>().is_ok())
                    && ["", "_PROTO", "_PORT", "_ADDR"].contains(&rest)
            })
        });
    is_of_kubernetes || name.starts_with("USHER_TEST_") || NOT_OF_THE_COMMAND_LINE.contains(&name)
}

fn most_similar(known: &BTreeSet<String>, name: &str) -> Option<String> {
    let word = |name: &str| name.trim_start_matches("USHER_").to_owned();
    let similarity = |setting: &str| strsim::jaro_winkler(&word(setting), &word(name));
    let rated = known.iter().map(|setting| (similarity(setting), setting));
    let best = rated.max_by(|(one, _), (other, _)| one.total_cmp(other));
    best.filter(|(similarity, _)| *similarity >= MIN_SIMILARITY).map(|(_, setting)| setting.clone())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::CommandLine;

    fn found(names: &[&str]) -> Option<String> {
        let names = names.iter().map(|name| (*name).to_owned());
        UnknownVariables::find(&CommandLine::command(), names).map(|found| found.to_string())
    }

    #[test]
    fn mistyped_settings_are_named_with_the_most_similar_one() {
        let shown = found(&["USHER_REDIS_ULR", "USHER_ADMINKEY", "USHER_Q", "PATH"]).unwrap();
        assert_eq!(
            shown,
            "unknown settings in the environment:\n  \
             USHER_REDIS_ULR: did you mean USHER_REDIS_URL?\n  \
             USHER_ADMINKEY: did you mean USHER_ADMIN_KEY?\n  \
             USHER_Q: no setting has a similar name"
        );
    }

    #[test]
    fn settings_and_variables_of_others_are_accepted() {
        let known = settings(&CommandLine::command());
        assert!(known.contains("USHER_MYSQL_URL") && known.contains("USHER_LOG"), "{known:?}");
        let known: Vec<_> = known.iter().map(String::as_str).collect();
        assert_eq!(found(&known), None);
        let foreign = [
            "USHER_SERVICE_HOST",
            "USHER_SERVICE_PORT",
            "USHER_SERVICE_PORT_HTTP",
            "USHER_PORT",
            "USHER_PORT_8080_TCP",
            "USHER_PORT_8080_TCP_PROTO",
            "USHER_PORT_8080_TCP_PORT",
            "USHER_PORT_8080_TCP_ADDR",
            "USHER_TEST_SEED",
            "USHER_URL",
            "HOME",
        ];
        assert_eq!(found(&foreign), None);
    }
}
