//! What is refused while the stores can't keep up: new places first, then promotions and holds.
//!
//! The level is set by whoever watches the outboxes and Redis' memory (`outbox/pressure.rs`). Payments of holds that are there, cancellings and
//! refunds go on at every level.

use std::sync::atomic::{AtomicU8, Ordering};

use super::LuaScript;
use crate::telemetry::Metric;

/// How much is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
#[repr(u8)]
pub enum PressureLevel {
    /// Nothing.
    #[default]
    Calm,
    /// Nothing yet, but somebody should look.
    Warned,
    /// Nobody new gets in line.
    Joins,
    /// Nobody is let in, and nothing is held.
    Holds,
}

impl PressureLevel {
    /// All of them, in order.
    pub const ALL: [Self; 4] = [Self::Calm, Self::Warned, Self::Joins, Self::Holds];
}

/// The scripts that are refused, and from which level on.
const REFUSED: [(&str, PressureLevel); 4] = [
    ("queue/join", PressureLevel::Joins),
    ("queue/promote", PressureLevel::Holds),
    ("seats/hold", PressureLevel::Holds),
    ("seats/best", PressureLevel::Holds),
];

/// The level that holds in this instance.
#[derive(Debug, Default)]
pub struct MemoryPressure(AtomicU8);

impl MemoryPressure {
    /// Stands what counts refusals at zero, so that the first of them is seen as one.
    pub fn stand_counters() {
        for (name, _) in REFUSED {
            Metric::ShedTotal.counter(&[("script", name)]).increment(0);
        }
    }

    /// The level that holds.
    pub fn level(&self) -> PressureLevel {
        PressureLevel::ALL[usize::from(self.0.load(Ordering::Relaxed))]
    }

    /// Sets the level.
    pub fn set(&self, level: PressureLevel) {
        self.0.store(level as u8, Ordering::Relaxed);
    }

    /// Whether a script is not to be called now.
    pub(super) fn refuses(&self, script: &LuaScript) -> bool {
        let level = self.level();
        let refused = level >= PressureLevel::Joins
            && REFUSED.iter().any(|(name, from)| *name == script.name() && level >= *from);
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
    fn joins_go_first_and_what_pays_never() {
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
            refused(PressureLevel::Calm).is_empty() && refused(PressureLevel::Warned).is_empty()
        );
        assert_eq!(refused(PressureLevel::Joins), ["queue/join"]);
        assert_eq!(
            refused(PressureLevel::Holds),
            ["queue/join", "queue/promote", "seats/best", "seats/hold"]
        );
    }
}
