//! Runs the actions of fail points.

use std::time::Duration;

const FILE_POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Fail points other than those of scripts.
const NAMED_POINTS: [&str; 9] = [
    "redis.many_servers",
    "writer.before_transaction",
    "writer.before_commit",
    "writer.after_commit",
    "writer.after_trim",
    "recovery.before_commit",
    "redis.load_scripts",
    "repartition.before_commit",
    "repartition.after_commit",
];

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("FAILPOINTS: there is no fail point {0:?}")]
    UnknownName(String),
    #[error("FAILPOINTS: {0:?}: {1}")]
    InvalidAction(String, String),
}

/// Sets the actions in `FAILPOINTS`. `scripts` are the names of all scripts.
///
/// # Errors
/// When a name or an action is unknown: a test would wait for it forever.
pub fn configure(scripts: impl Iterator<Item = &'static str>) -> Result<(), Error> {
    let known: Vec<String> = scripts
        .flat_map(|name| [format!("{name}.before"), format!("{name}.after")])
        .chain(NAMED_POINTS.map(str::to_owned))
        .collect();
    let configured = std::env::var("FAILPOINTS").unwrap_or_default();
    for point in configured.split(';').map(str::trim).filter(|point| !point.is_empty()) {
        let (name, action) = point.split_once('=').unwrap_or((point, ""));
        if !known.iter().any(|known| known == name) {
            return Err(Error::UnknownName(name.to_owned()));
        }
        fail::cfg(name, action).map_err(|why| Error::InvalidAction(point.to_owned(), why))?;
    }
    Ok(())
}

/// Whether this fail point has the action `return`.
pub fn is_set(name: &str) -> bool {
    fail::eval(name, |_| ()).is_some()
}

/// Runs the action of this fail point, if there is one.
pub async fn reach(name: &str) {
    let Some(action) = fail::eval(name, Option::unwrap_or_default) else { return };
    tracing::warn!("fail point {name}: {action}");
    match action.split_once(' ').unwrap_or((&action, "")) {
        ("kill", "") => std::process::abort(),
        ("stop", "") => {
            freeze();
            tokio::time::sleep(FREEZE_TIME).await;
        }
        ("until", path) if !path.is_empty() => {
            while !std::path::Path::new(path).exists() {
                tokio::time::sleep(FILE_POLL_INTERVAL).await;
            }
        }
        _ => panic!("fail point {name}: unknown action {action}"),
    }
}

/// Time for the signal to stop every thread. The thread that froze the process waits, because it
/// could continue for a moment on a busy machine.
const FREEZE_TIME: Duration = Duration::from_millis(500);

/// Uses the `kill` of the shell.
fn freeze() {
    let kill = format!("kill -STOP {}", std::process::id());
    if let Err(error) = std::process::Command::new("/bin/sh").args(["-c", &kill]).status() {
        panic!("{kill}: {error}");
    }
}
