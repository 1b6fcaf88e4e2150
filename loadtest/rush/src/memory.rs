//! Resident memory of an instance: idle, and per waiting user.

use std::time::Duration;

use crate::stack::ServiceStack;
use crate::table::{MarkdownTable, figure};
use crate::{BoxError, log_progress, machine, setup};

const IDLE_TIME: Duration = Duration::from_secs(2);
/// Users who join first, so that connections and buffers reach their size.
const WARMUP_USERS: usize = 20_000;
const MEASURED_USERS: usize = 200_000;

/// Measures an instance that has served no request yet.
pub(crate) async fn measure(stack: &ServiceStack) -> Result<String, BoxError> {
    log_progress("measuring memory");
    tokio::time::sleep(IDLE_TIME).await;
    let resident = || machine::resident_bytes(stack.service_pid());
    let idle = resident()?;
    setup::paused_queue(stack.addresses(), "memory").await?;
    setup::join_users(stack.addresses(), "memory", WARMUP_USERS).await?;
    let before = resident()?;
    setup::join_users(stack.addresses(), "memory", MEASURED_USERS).await?;
    let after = resident()?;
    let mebibytes = |bytes: u64| figure(bytes as f64 / f64::from(1 << 20));
    let mut table = MarkdownTable::new(&["resident memory of an instance", "MiB"]);
    table.add_row(vec!["idle".to_owned(), mebibytes(idle)]);
    table.add_row(vec![format!("{WARMUP_USERS} waiting users"), mebibytes(before)]);
    table.add_row(vec![
        format!("{} waiting users", WARMUP_USERS + MEASURED_USERS),
        mebibytes(after),
    ]);
    let per_user = (after as f64 - before as f64) / MEASURED_USERS as f64;
    Ok(format!("{}\nEach waiting user adds {} bytes.\n", table.render(), figure(per_user)))
}
