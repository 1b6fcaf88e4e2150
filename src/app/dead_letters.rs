//! `usher dead-letters`: what MySQL refused, for whoever repairs it.

use std::io::Write;

use secrecy::ExposeSecret;

use super::Error;
use crate::config::MigrateSettings;
use crate::mysql;
use crate::outbox::dead_letters;

/// `usher dead-letters list`: prints each with its place, the events in it that were refused, and why.
///
/// # Errors
/// When MySQL can't be reached, or nothing can be written.
pub async fn list(settings: &MigrateSettings) -> Result<(), Error> {
    let pool = mysql::connect(settings.mysql.url.expose_secret(), 1).await?;
    let letters = dead_letters::list(&pool).await?;
    pool.close().await;
    let mut out = std::io::stdout();
    for letter in &letters {
        let what = match &letter.events {
            Some(places) => format!("events {:?}", places.0),
            None => "unreadable".to_owned(),
        };
        let at = letter.buried_at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
        let place = format!("{}:{}", letter.partition, letter.n);
        writeln!(out, "{place}  {at}  {} bytes, {what}: {}", letter.payload.len(), letter.cause)
            .map_err(Error::Output)?;
    }
    writeln!(out, "{} dead letters", letters.len()).map_err(Error::Output)
}

/// `usher dead-letters retry`: applies all of them again, or one.
///
/// # Errors
/// When MySQL can't be reached, nothing can be written, or some are refused again.
pub async fn retry(settings: &MigrateSettings, only: Option<(u16, u64)>) -> Result<(), Error> {
    let pool = mysql::connect(settings.mysql.url.expose_secret(), 1).await?;
    let retried = dead_letters::retry(&pool, settings.partitions, only).await?;
    pool.close().await;
    writeln!(std::io::stdout(), "{} applied, {} refused", retried.applied, retried.refused)
        .map_err(Error::Output)?;
    if retried.refused > 0 { Err(Error::StillDead(retried.refused)) } else { Ok(()) }
}
