//! The log: lines for people or JSON for machines, on standard error, so that standard output stays a command's own.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// How a line looks (`USHER_LOG`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// One line of text an event.
    #[default]
    Text,
    /// One JSON object an event.
    Json,
}

/// Why the log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter can't be read.
    #[error("RUST_LOG: {0}")]
    Filter(#[from] ParseError),
}

/// Starts the log for the process. `levels` is what `RUST_LOG` says; `info` if it says nothing. A second call changes nothing.
///
/// # Errors
/// When `levels` can't be read.
pub fn init(format: Format, levels: Option<&str>) -> Result<(), Error> {
    let levels = levels.filter(|levels| !levels.trim().is_empty()).unwrap_or("info");
    let lines = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::builder().parse(levels)?)
        .with_writer(std::io::stderr);
    // An error here means that a subscriber is set already: the first one wins.
    let _first_wins = match format {
        Format::Text => lines.try_init(),
        Format::Json => lines.json().flatten_event(true).try_init(),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_filter_is_an_error_that_names_the_setting() {
        let error = init(Format::Text, Some("usher=loud")).unwrap_err();
        assert!(error.to_string().starts_with("RUST_LOG: "), "{error}");
    }

    #[test]
    fn starting_twice_is_harmless() {
        init(Format::Json, None).unwrap();
        init(Format::Text, Some(" ")).unwrap();
    }
}
