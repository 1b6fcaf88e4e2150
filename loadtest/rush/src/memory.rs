//! What an instance keeps in memory: at rest, and for each user who waits.

use std::time::Duration;

use crate::stack::Stack;
use crate::table::{Table, figure};
use crate::{Failure, machine, prepare, progress};

/// How long an instance rests before its memory at rest is read.
const REST: Duration = Duration::from_secs(2);
/// Users who join first, so that connections and buffers have their size, and those whose growth is measured.
const FIRST: usize = 20_000;
const MORE: usize = 200_000;

/// Measures a service that nobody has asked anything yet.
pub(crate) async fn measure(stack: &Stack) -> Result<String, Failure> {
    progress("measuring memory");
    tokio::time::sleep(REST).await;
    let resident = || machine::resident_bytes(stack.service_pid());
    let idle = resident()?;
    prepare::paused_queue(&stack.target, "memory").await?;
    prepare::joined(&stack.target, "memory", FIRST).await?;
    let before = resident()?;
    prepare::joined(&stack.target, "memory", MORE).await?;
    let after = resident()?;
    let mebibytes = |bytes: u64| figure(bytes as f64 / f64::from(1 << 20));
    let mut table = Table::new(&["resident memory of an instance", "MiB"]);
    table.row(vec!["at rest".to_owned(), mebibytes(idle)]);
    table.row(vec![format!("{FIRST} users in line"), mebibytes(before)]);
    table.row(vec![format!("{} users in line", FIRST + MORE), mebibytes(after)]);
    let each = (after as f64 - before as f64) / MORE as f64;
    Ok(format!("\n{}\nA waiting user adds {} bytes.\n", table.render(), figure(each)))
}
