//! Load limits: which scripts are refused while MySQL is behind or Redis is nearly full. First
//! joins, then everything that fills Redis except payments of existing holds, releases,
//! cancellations and refunds. Those are accepted at every level.
//!
//! `outbox/pressure.rs` measures both and sets the level.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use super::LuaScript;
use crate::telemetry::Metric;

/// How much new work is refused. The order matters: a higher level refuses more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
#[repr(u8)]
pub enum PressureLevel {
    #[default]
    Normal,
    /// Nothing is refused, but an alert fires.
    Warning,
    /// No user can join a queue.
    RefuseJoins,
    /// In addition, no user is admitted, no seat is held, no wallet is charged or used, no coupon
    /// is issued, no reward is claimed and no fact is set.
    RefuseHolds,
}

impl PressureLevel {
    /// In ascending order; the index is the value of the level's metric.
    pub const ALL: [Self; 4] = [Self::Normal, Self::Warning, Self::RefuseJoins, Self::RefuseHolds];
}

/// The scripts that are refused, and the lowest level that refuses them.
const REFUSED_SCRIPTS: [(&str, PressureLevel); 10] = [
    ("queue/join", PressureLevel::RefuseJoins),
    ("queue/promote", PressureLevel::RefuseHolds),
    ("seats/hold", PressureLevel::RefuseHolds),
    ("seats/best", PressureLevel::RefuseHolds),
    ("wallet/charge", PressureLevel::RefuseHolds),
    ("wallet/use", PressureLevel::RefuseHolds),
    ("coupons/issue", PressureLevel::RefuseHolds),
    ("rewards/claim", PressureLevel::RefuseHolds),
    ("rewards/set_facts", PressureLevel::RefuseHolds),
    ("rewards/merge_facts", PressureLevel::RefuseHolds),
];

/// The current level of this instance.
#[derive(Debug, Default)]
pub struct MemoryPressure {
    level: AtomicU8,
    memory_short: AtomicBool,
}

impl MemoryPressure {
    /// Sets the counters of refusals to 0, so that a rate sees the first refusal.
    pub fn init_counters() {
        for (name, _) in REFUSED_SCRIPTS {
            Metric::ShedTotal.counter(&[("script", name)]).increment(0);
        }
    }

    pub fn level(&self) -> PressureLevel {
        PressureLevel::ALL[usize::from(self.level.load(Ordering::Relaxed))]
    }

    pub fn set(&self, level: PressureLevel) {
        self.level.store(level as u8, Ordering::Relaxed);
    }

    /// Whether the memory of Redis has reached its lower mark.
    pub fn is_memory_short(&self) -> bool {
        self.memory_short.load(Ordering::Relaxed)
    }

    pub fn set_memory_short(&self, short: bool) {
        self.memory_short.store(short, Ordering::Relaxed);
    }

    /// Whether a script must not be called now. Counts the refusal.
    pub(super) fn refuses(&self, script: &LuaScript) -> bool {
        let level = self.level();
        let refused = level >= PressureLevel::RefuseJoins
            && REFUSED_SCRIPTS.iter().any(|(name, from)| *name == script.name() && level >= *from);
        if refused {
            Metric::ShedTotal.counter(&[("script", script.name())]).increment(1);
        }
        refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::scripts;

    #[test]
    fn joins_are_refused_first_and_payments_never() {
        let pressure = MemoryPressure::default();
        let refused = |level| {
            pressure.set(level);
            assert_eq!(pressure.level(), level);
            scripts::ALL
                .iter()
                .map(|it| it.name())
                .zip(scripts::ALL)
                .filter(|(_, it)| pressure.refuses(it))
                .map(|(name, _)| name)
                .collect::<Vec<_>>()
        };
        assert!(
            refused(PressureLevel::Normal).is_empty() && refused(PressureLevel::Warning).is_empty()
        );
        assert_eq!(refused(PressureLevel::RefuseJoins), ["queue/join"]);
        assert_eq!(
            refused(PressureLevel::RefuseHolds),
            [
                "coupons/issue",
                "queue/join",
                "queue/promote",
                "rewards/claim",
                "rewards/merge_facts",
                "rewards/set_facts",
                "seats/best",
                "seats/hold",
                "wallet/charge",
                "wallet/use",
            ]
        );
    }
}
