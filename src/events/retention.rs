//! Deletes events that are older than the retention, in bounded steps.

use super::{EventService, sql};
use crate::mysql;

/// Rows of one transaction.
const ROWS_PER_STEP: u32 = 2_000;

impl EventService {
    /// Deletes the events that are older than the retention. Returns the number of rows.
    ///
    /// # Errors
    /// From MySQL.
    pub async fn delete_old(&self) -> Result<u64, mysql::Error> {
        let mut deleted = 0;
        for partition in sql::logged_partitions(&self.mysql).await? {
            loop {
                let hours = self.retention_hours;
                let step = sql::delete_old(&self.mysql, partition, hours, ROWS_PER_STEP).await?;
                deleted += step;
                if step < u64::from(ROWS_PER_STEP) {
                    break;
                }
            }
        }
        Ok(deleted)
    }
}
