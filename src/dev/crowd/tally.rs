//! What the crowd does and has done, counted.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counts {
    ($($(#[doc = $about:literal])+ $name:ident)*) => {
        /// Numbers of people and of what they did.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct SimulationCounts {
            $($(#[doc = $about])+ pub $name: u64,)*
        }

        /// The same, being counted.
        #[derive(Debug, Default)]
        pub(super) struct SimulationTally {
            $(pub(super) $name: AtomicU64,)*
        }

        impl SimulationTally {
            pub(super) fn counts(&self) -> SimulationCounts {
                SimulationCounts { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counts! {
    /// In line now.
    in_line
    /// Inside now.
    inside
    /// Owners of seats now.
    owners
    /// Visits begun.
    visits
    /// Places in line or inside that were given up, or left without a word.
    gave_up
    /// Holds.
    held
    /// Holds that were given back.
    given_back
    /// Payments.
    paid
    /// Bookings cancelled.
    cancelled
    /// Calls that failed for no reason of theirs.
    failed
}

pub(super) fn add(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

/// SimulationCounts somebody as long as it lives.
pub(super) struct PresenceGuard<'a>(&'a AtomicU64);

impl<'a> PresenceGuard<'a> {
    pub(super) fn new(count: &'a AtomicU64) -> Self {
        add(count);
        Self(count)
    }
}

impl Drop for PresenceGuard<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
