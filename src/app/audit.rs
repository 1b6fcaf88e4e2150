//! `usher audit`: checks the stores and prints the result.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::domain_services::{DomainServices, connect};
use super::error::Error;
use crate::config::StoreSettings;
use crate::ids::QueueId;
use crate::queue::TokenSigner;

/// How long the audit waits for unfinished work. The sweep finishes the payment of a killed
/// instance in less time.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(30);

/// `usher audit`: checks all invariants over both stores and prints each check. Returns whether all
/// hold.
///
/// # Errors
/// When a store is not reachable, or standard output can't be written.
pub async fn audit(stores: &StoreSettings) -> Result<bool, Error> {
    let (redis, mysql) = connect(stores).await?;
    let show_progress = std::io::stderr().is_terminal();
    let progress = |check: &'static str, seen: u64, about: u64| {
        if show_progress {
            let filled = usize::try_from((20 * seen).checked_div(about).unwrap_or_default())
                .unwrap_or_default();
            // A closed terminal does not stop the audit.
            let _ = write!(
                std::io::stderr(),
                "\r[{:<20}] {seen} of about {about}, {check:<12}",
                "#".repeat(filled)
            );
        }
    };
    let report = crate::audit::audit(&redis, &mysql, SETTLE_TIMEOUT, &progress).await?;
    redis.close().await;
    mysql.close().await;
    if show_progress {
        let _ = writeln!(std::io::stderr());
    }
    let mut out = std::io::stdout();
    let number =
        |number: Option<i64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    for check in &report.checks {
        let (result, redis, mysql) =
            (if check.ok { "ok" } else { "FAULT" }, number(check.redis), number(check.mysql));
        writeln!(
            out,
            "{result:<5} {:<12} Redis {redis:>12}  MySQL {mysql:>12}  {}",
            check.name, check.detail
        )
        .map_err(Error::Output)?;
    }
    writeln!(out, "{}", if report.consistent { "consistent" } else { "not consistent" })
        .map_err(Error::Output)?;
    Ok(report.consistent)
}

/// `usher audit queue`: checks the order, rate and lottery of one queue and prints the result.
/// Returns whether the queue was fair.
///
/// # Errors
/// When a store is not reachable, the queue does not exist, or standard output can't be written.
pub async fn audit_queue(stores: &StoreSettings, queue: &QueueId) -> Result<bool, Error> {
    let (services, _) =
        DomainServices::open(stores, TokenSigner::new(&[]), CancellationToken::new()).await?;
    let audit = services.queue.audit(queue).await?;
    services.close().await;
    let mut out = std::io::stdout();
    let counts = format!(
        "{} promotions admitted {} users; {} draws, {} lottery positions verified",
        audit.promotions, audit.admitted, audit.draws, audit.lottery_scores
    );
    writeln!(out, "{queue}: {counts}").map_err(Error::Output)?;
    for fault in &audit.violations {
        writeln!(out, "  fault: {fault}").map_err(Error::Output)?;
    }
    let is_fair = audit.violations.is_empty();
    writeln!(out, "{}", if is_fair { "fair" } else { "not fair" }).map_err(Error::Output)?;
    Ok(is_fair)
}
