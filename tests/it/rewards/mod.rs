//! Rewards: claims and their conditions.

mod claim;
mod revocation;
