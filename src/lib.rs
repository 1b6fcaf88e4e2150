//! Usher: admission and booking for the minute when far more people come than there are seats.

pub mod dev;
pub mod ids;
pub mod money;
pub mod partition;
