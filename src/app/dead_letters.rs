//! `usher dead-letters`: lists and retries the events that MySQL refused.

use std::io::Write;

use secrecy::ExposeSecret;

use super::error::Error;
use crate::config::MysqlSettings;
use crate::mysql::{self, migrate};
use crate::outbox::dead_letters;

/// `usher dead-letters list`: prints the position, the refused events and the cause of each dead
/// letter.
///
/// # Errors
/// When MySQL is not reachable, or standard output can't be written.
pub async fn list(settings: &MysqlSettings) -> Result<(), Error> {
    let pool = mysql::connect(settings.url.expose_secret(), 1).await?;
    let dead_letters = dead_letters::list(&pool).await?;
    pool.close().await;
    let mut out = std::io::stdout();
    for dead_letter in &dead_letters {
        let events = match &dead_letter.events {
            Some(indexes) => format!("events {:?}", indexes.0),
            None => "unreadable".to_owned(),
        };
        let at = dead_letter.buried_at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
        let position = format!("{}:{}", dead_letter.partition, dead_letter.n);
        writeln!(
            out,
            "{position}  {at}  {} bytes, {events}: {}",
            dead_letter.payload.len(),
            dead_letter.cause
        )
        .map_err(Error::Output)?;
    }
    writeln!(out, "{} dead letters", dead_letters.len()).map_err(Error::Output)
}

/// `usher dead-letters retry`: applies all dead letters again, or one.
///
/// # Errors
/// When MySQL is not reachable, standard output can't be written, or MySQL refuses some of them
/// again.
pub async fn retry(settings: &MysqlSettings, only: Option<(u16, u64)>) -> Result<(), Error> {
    let pool = mysql::connect(settings.url.expose_secret(), 1).await?;
    let partitions = migrate::partitions(&pool).await?.ok_or(Error::NotMigrated)?;
    let retried = dead_letters::retry(&pool, partitions, only).await?;
    pool.close().await;
    writeln!(std::io::stdout(), "{} applied, {} refused", retried.applied, retried.refused)
        .map_err(Error::Output)?;
    if retried.refused > 0 { Err(Error::DeadLettersRefused(retried.refused)) } else { Ok(()) }
}
