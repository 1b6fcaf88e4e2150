//! When the users of a crowd come: at a fixed rate, whatever the service does meanwhile. That is what makes the loop open.

use std::time::Duration;

/// The arrivals that one of several processes makes: of all arrivals, numbered from zero, each `of`-th from `first` on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schedule {
    /// Arrivals a second, those of all processes together.
    pub(crate) rate: f64,
    /// Arrivals of all processes.
    pub(crate) total: u64,
    /// The number of the first arrival of this process.
    pub(crate) first: u64,
    /// How many processes share the arrivals.
    pub(crate) of: u64,
}

impl Schedule {
    /// Numbers and times since the beginning, in order.
    pub(crate) fn arrivals(self) -> impl Iterator<Item = (u64, Duration)> {
        let step = usize::try_from(self.of.max(1)).unwrap_or(usize::MAX);
        (self.first..self.total)
            .step_by(step)
            .map(move |n| (n, Duration::from_secs_f64(n as f64 / self.rate)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_share_the_arrivals_and_together_make_each_of_them_once_at_its_time() {
        let share = |first| Schedule { rate: 250.0, total: 1_001, first, of: 3 }.arrivals();
        let mut all: Vec<_> = (0..3).flat_map(share).collect();
        all.sort_unstable();
        let wanted: Vec<_> = (0..1_001).map(|n| (n, Duration::from_millis(4 * n))).collect();
        assert_eq!(all, wanted);
    }
}
