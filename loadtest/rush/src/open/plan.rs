//! What one process of a crowd is told to do.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::schedule::Schedule;

/// What the users want.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// To join, wait, and buy a seat.
    Journeys,
    /// One of the coupons.
    Coupons,
    /// To know how long yet.
    Polls,
}

/// The share of one process in a crowd.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) kind: Kind,
    /// The public listener.
    pub(crate) address: SocketAddr,
    /// The name of the queue, of its concert, or of the coupon.
    pub(crate) name: String,
    /// The name of the date.
    pub(crate) schedule: String,
    /// Seats of the hall.
    pub(crate) seats: u64,
    /// Which users: the same seed and number are the same user.
    pub(crate) seed: u128,
    /// Users, all processes together; those who poll are in line before the run begins.
    pub(crate) users: u64,
    /// Arrivals, all processes together: users who come, or polls.
    pub(crate) arrivals: u64,
    /// Arrivals a second, all processes together.
    pub(crate) rate: f64,
    /// Which of the processes this is, from zero, and how many there are.
    pub(crate) process: (u64, u64),
    /// Connections that this process shares out to its users.
    pub(crate) connections: usize,
}

impl Plan {
    /// The arrivals that this process makes.
    pub(crate) fn schedule(&self) -> Schedule {
        let (first, of) = self.process;
        Schedule { rate: self.rate, total: self.arrivals, first, of }
    }
}
