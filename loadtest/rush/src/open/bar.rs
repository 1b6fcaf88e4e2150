//! A line on standard error that says how far the crowd is: drawn over itself in a terminal, a line every few seconds elsewhere.

use std::io::{IsTerminal, Write, stderr};
use std::time::Duration;

use super::worker::Progress;

/// Characters of the bar.
const WIDTH: usize = 30;
/// The pause between two lines where nobody watches.
const QUIET: Duration = Duration::from_secs(5);

/// The bar.
pub(super) struct Bar {
    goal: u64,
    drawn: bool,
    told: Duration,
}

impl Bar {
    /// Full when `goal` is done.
    pub(super) fn new(goal: u64) -> Self {
        Self { goal, drawn: stderr().is_terminal(), told: Duration::ZERO }
    }

    /// Shows what all processes have done.
    pub(super) fn show(&mut self, each: &[Progress], elapsed: Duration) {
        let line = line(each, self.goal, elapsed);
        if self.drawn {
            let _ = write!(stderr(), "\r{line}\x1b[K");
        } else if elapsed >= self.told + QUIET {
            self.told = elapsed;
            eprintln!("{line}");
        }
    }

    /// Leaves the last line standing.
    pub(super) fn end(&self) {
        if self.drawn {
            eprintln!();
        }
    }
}

fn line(each: &[Progress], goal: u64, elapsed: Duration) -> String {
    let sum = |of: fn(&Progress) -> u64| each.iter().map(of).sum::<u64>();
    let done = sum(|p| p.done);
    let full = usize::try_from(done.min(goal) * WIDTH as u64 / goal.max(1)).unwrap_or(WIDTH);
    let bar = "█".repeat(full) + &"·".repeat(WIDTH - full);
    let (came, admitted, won) = (sum(|p| p.came), sum(|p| p.admitted), sum(|p| p.won));
    format!("{bar} {done}/{goal}  {:.0} s  came {came}  let in {admitted}  won {won}", elapsed.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_adds_the_processes_up_and_never_overflows() {
        let one = Progress { came: 10, done: 4, admitted: 3, won: 2 };
        let line = |goal| line(&[one, one], goal, Duration::from_secs(7));
        assert!(
            line(16).starts_with(&"█".repeat(15)) && line(16).contains("8/16  7 s  came 20  let in 6  won 4")
        );
        assert_eq!(line(4).matches('█').count(), WIDTH);
    }
}
