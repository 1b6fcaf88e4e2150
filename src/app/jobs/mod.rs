//! Work in the background that survives the death of an instance: calling off a schedule.
//!
//! A job is a row in MySQL. One instance works on it under a lease, which it renews with every
//! batch. When it dies, the lease ends and another instance continues. Nothing has to be handed
//! over: what is left to do is what Redis still shows as held or sold, and each cancellation has an
//! idempotency key of the job. So two instances that work at once, after a lease ended too early,
//! refund nothing twice.

mod routes;
mod runner;
mod sql;

pub(super) use routes::router;
pub(super) use runner::run;
