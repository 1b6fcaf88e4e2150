//! Rewards: claims and their conditions.

mod claim;
