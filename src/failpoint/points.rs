//! What happens at the points.

use std::time::Duration;

/// How often a held point looks for its file.
const LOOK: Duration = Duration::from_millis(10);

/// The points beside those of the scripts.
const OTHERS: [&str; 8] = [
    "writer.before_transaction",
    "writer.before_commit",
    "writer.after_commit",
    "writer.after_trim",
    "recovery.before_commit",
    "redis.load_scripts",
    "repartition.before_commit",
    "repartition.after_commit",
];

/// Why the points could not be set.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no point of that name.
    #[error("FAILPOINTS: there is no point «{0}»")]
    Name(String),
    /// What shall happen there is not understood.
    #[error("FAILPOINTS: «{0}»: {1}")]
    Action(String, String),
}

/// Sets the points as the environment says. `scripts` are the names of all scripts.
///
/// # Errors
/// When a name or an action in `FAILPOINTS` is unknown: a test that waits for it would wait for ever.
pub fn arm(scripts: impl Iterator<Item = &'static str>) -> Result<(), Error> {
    let known: Vec<String> = scripts
        .flat_map(|name| [format!("{name}.before"), format!("{name}.after")])
        .chain(OTHERS.map(str::to_owned))
        .collect();
    let wanted = std::env::var("FAILPOINTS").unwrap_or_default();
    for point in wanted.split(';').map(str::trim).filter(|point| !point.is_empty()) {
        let (name, action) = point.split_once('=').unwrap_or((point, ""));
        if !known.iter().any(|known| known == name) {
            return Err(Error::Name(name.to_owned()));
        }
        fail::cfg(name, action).map_err(|why| Error::Action(point.to_owned(), why))?;
    }
    Ok(())
}

/// Does what was set for this point, if anything was.
pub async fn reach(name: &str) {
    let Some(action) = fail::eval(name, Option::unwrap_or_default) else { return };
    tracing::warn!("fail point {name}: {action}");
    match action.split_once(' ').unwrap_or((&action, "")) {
        ("kill", "") => std::process::abort(),
        ("stop", "") => {
            freeze();
            tokio::time::sleep(FROZEN_WITHIN).await;
        }
        ("until", path) if !path.is_empty() => {
            while !std::path::Path::new(path).exists() {
                tokio::time::sleep(LOOK).await;
            }
        }
        _ => panic!("fail point {name}: no such action: {action}"),
    }
}

/// How long the signal may take to reach every thread. Whoever froze the process waits so long inside, or would go on for a moment on a busy machine.
const FROZEN_WITHIN: Duration = Duration::from_millis(500);

/// By the shell's own `kill`, since nothing else here speaks to the system.
fn freeze() {
    let kill = format!("kill -STOP {}", std::process::id());
    if let Err(error) = std::process::Command::new("/bin/sh").args(["-c", &kill]).status() {
        panic!("{kill}: {error}");
    }
}
