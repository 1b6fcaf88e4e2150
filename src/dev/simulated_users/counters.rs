//! Counters of what simulated users do.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[doc = $about:literal])+ $name:ident)*) => {
        /// Counts of users and of their actions since the start of the process.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct SimulationCounts {
            $($(#[doc = $about])+ pub $name: u64,)*
        }

        #[derive(Debug, Default)]
        pub(super) struct SimulationCounters {
            $(pub(super) $name: AtomicU64,)*
        }

        impl SimulationCounters {
            pub(super) fn counts(&self) -> SimulationCounts {
                SimulationCounts { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Users who wait now.
    waiting
    /// Users who are active now.
    active
    /// Users who own seats now.
    owners
    /// Visits that began.
    visits
    /// Queue places given up, with or without leaving the queue.
    gave_up
    /// Holds created.
    held
    /// Holds released.
    released
    /// Payments confirmed.
    paid
    /// Reservations cancelled after payment.
    cancelled
    /// Calls without a response, or with a status of 500 or more.
    failed
}

pub(super) fn increment(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Counts one user as present until it is dropped.
pub(super) struct PresenceGuard<'a>(&'a AtomicU64);

impl<'a> PresenceGuard<'a> {
    pub(super) fn new(counter: &'a AtomicU64) -> Self {
        increment(counter);
        Self(counter)
    }
}

impl Drop for PresenceGuard<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
