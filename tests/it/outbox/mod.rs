//! The outbox: delivery to MySQL, dead letters, durability wait and backpressure.

mod backpressure;
mod dead_letters;
mod delivery;
mod durability_wait;
mod writer_faults;
