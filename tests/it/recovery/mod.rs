//! Recovery: restore of Redis from MySQL, reconciliation and repartitioning.

mod duration;
mod faults;
mod moved_concert;
pub(crate) mod mysql_back;
mod queue;
mod reconcile;
mod repartition;
pub(crate) mod restore;
