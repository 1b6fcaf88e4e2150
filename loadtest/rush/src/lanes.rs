//! A hot queue spread over lanes: how far from the order of arrival people are let in, simulated. `docs/scale.md` has the theory.
//!
//! Everybody is in line when it opens. Each user stands in the lane that their name falls into; within a lane the order is exact. Each tick lets
//! in as many as one line would.

use crate::table::{Table, figure};
use crate::{Failure, print, progress};

/// Ticks in which one line would be let in.
const TICKS: usize = 2_000;
/// Lines that are simulated for each row, each with users of other names.
const RUNS: u64 = 10;
/// Seats for one in so many.
const CUT: usize = 50;

const READING: &str = "\nA user's displacement is by how many places of the whole line they are let in earlier or later than one line would have; one tick \
lets in a two-thousandth of the line, which is the grain. `theory` is the standard deviation at the middle of the line, √(K/2·(L−1)) with equal shares and \
√(K/4·(L−1)) with shares by length. `missed` are users among the first fiftieth of the line who were not among the first fiftieth let in, in theory √(C·(L−1)/2π) of C; `worst` is the worst of all lines, the others are means; `longer` is by how much the last is let in after one line's last.\n";

/// Who decides how many each lane lets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shares {
    /// Each the same part, also one that has run empty.
    Equal,
    /// By how many wait in each.
    ByLength,
}

/// Simulates lines of `users` and prints the table.
pub(crate) fn run(users: u32, lanes: &[usize]) -> Result<(), Failure> {
    if !(10_000..=20_000_000).contains(&users) || lanes.iter().any(|lanes| !(1..=1_024).contains(lanes)) {
        return Err("--users must be from 10000 to 20000000, --lanes from 1 to 1024 each".into());
    }
    let mut table = Table::new(&[
        "lanes",
        "shares",
        "sd at the middle",
        "theory",
        "p99 places",
        "worst places",
        "worst % of the line",
        "missed",
        "theory",
        "longer %",
    ]);
    for count in lanes {
        for shares in [Shares::Equal, Shares::ByLength] {
            progress(&format!("{count} lanes, {shares:?}"));
            table.row(row(users, *count, shares));
        }
    }
    print(&format!("{RUNS} lines of {users}:\n\n{}{READING}", table.render()))
}

/// What one line, spread over lanes, did to those in it.
struct Outcome {
    /// By how many places each user was let in earlier or later, the least first.
    places: Vec<f64>,
    /// The mean square of the displacement in the middle fiftieth of the line.
    square: f64,
    /// Users of the first fiftieth who were not among the first fiftieth let in.
    missed: f64,
    /// By which share the last was later than one line's last.
    longer: f64,
}

fn outcome(users: u32, lanes: usize, shares: Shares, seed: u64) -> Outcome {
    let admitted = simulate(users, lanes, shares, seed);
    let tick = f64::from(users) / TICKS as f64;
    let displaced = |(at, when): (usize, &u32)| (f64::from(*when) - (at as f64 / tick).floor()) * tick;
    let middle = admitted.len() * 49 / 100..admitted.len() * 51 / 100;
    let squares =
        admitted.iter().enumerate().skip(middle.start).take(middle.len()).map(|it| displaced(it).powi(2));
    let square = squares.sum::<f64>() / middle.len() as f64;
    let mut places: Vec<f64> = admitted.iter().enumerate().map(|it| displaced(it).abs()).collect();
    places.sort_by(f64::total_cmp);
    let cut = (users as usize / CUT, TICKS / CUT);
    let missed = admitted[..cut.0].iter().filter(|when| **when as usize >= cut.1).count() as f64;
    let last = admitted.iter().max().map_or(0.0, |tick| f64::from(*tick) + 1.0);
    Outcome { places, square, missed, longer: last / TICKS as f64 - 1.0 }
}

fn row(users: u32, lanes: usize, shares: Shares) -> Vec<String> {
    let (total, others) = (f64::from(users), lanes as f64 - 1.0);
    let (theory, name) = match shares {
        Shares::Equal => ((total / 2.0 * others).sqrt(), "equal"),
        Shares::ByLength => ((total / 4.0 * others).sqrt(), "by length"),
    };
    let runs: Vec<_> = (0..RUNS).map(|seed| outcome(users, lanes, shares, seed)).collect();
    let mean = |of: &dyn Fn(&Outcome) -> f64| runs.iter().map(of).sum::<f64>() / runs.len() as f64;
    let worst = runs.iter().map(|run| run.places[run.places.len() - 1]).fold(0.0, f64::max);
    vec![
        lanes.to_string(),
        name.to_owned(),
        figure(mean(&|run| run.square).sqrt()),
        figure(theory),
        figure(mean(&|run| run.places[run.places.len() * 99 / 100])),
        figure(worst),
        figure(worst / total * 100.0),
        figure(mean(&|run| run.missed)),
        figure((total / CUT as f64 * others / std::f64::consts::TAU).sqrt()),
        figure(mean(&|run| run.longer) * 100.0),
    ]
}

/// The tick in which each user is let in, in the order of arrival.
fn simulate(users: u32, lanes: usize, shares: Shares, seed: u64) -> Vec<u32> {
    let mut lines = vec![Vec::new(); lanes];
    for user in 0..users {
        lines[lane(user, lanes, seed)].push(user);
    }
    let mut admitted = vec![0; users as usize];
    let mut gone = vec![0; lanes];
    // What each lane is owed: the part of a user that is left over waits for the next tick.
    let mut owed = vec![0.0; lanes];
    let (mut left, mut tick) = (users as usize, 0);
    let each = f64::from(users) / TICKS as f64;
    while left > 0 {
        let total = left as f64;
        for (lane, line) in lines.iter().enumerate() {
            let waiting = &line[gone[lane]..];
            owed[lane] += each
                * match shares {
                    Shares::Equal => 1.0 / lanes as f64,
                    Shares::ByLength => waiting.len() as f64 / total,
                };
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small and positive")]
            let part = (owed[lane] as usize).min(waiting.len());
            // A lane that has run empty is owed nothing for later.
            owed[lane] = (owed[lane] - part as f64).min(1.0);
            waiting[..part].iter().for_each(|user| admitted[*user as usize] = tick);
            gone[lane] += part;
            left -= part;
        }
        tick += 1;
    }
    admitted
}

/// The lane of a user: any hash that spreads well.
fn lane(user: u32, lanes: usize, seed: u64) -> usize {
    let mut mixed = (u64::from(user) << 32 | seed).wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    usize::try_from((mixed ^ (mixed >> 31)) % lanes as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_lane_is_one_line() {
        for shares in [Shares::Equal, Shares::ByLength] {
            let admitted = simulate(20_000, 1, shares, 0);
            assert!(admitted.iter().enumerate().all(|(at, tick)| *tick as usize == at / 10));
        }
    }

    #[test]
    fn lanes_keep_the_order_within_and_let_in_no_more_than_one_line() {
        for shares in [Shares::Equal, Shares::ByLength] {
            let admitted = simulate(40_000, 8, shares, 0);
            let mut last = [0; 8];
            let mut counts = std::collections::BTreeMap::new();
            for (user, tick) in (0..).zip(&admitted) {
                assert!(last[lane(user, 8, 0)] <= *tick);
                last[lane(user, 8, 0)] = *tick;
                *counts.entry(*tick).or_insert(0) += 1;
            }
            // What a lane is owed of a user may come a tick later.
            assert!(counts.values().all(|count| *count <= 20 + 8), "{counts:?}");
        }
    }

    #[test]
    fn shares_by_length_end_with_the_one_line_and_stay_nearer_to_it() {
        let of = |shares| outcome(100_000, 16, shares, 3);
        let (equal, by_length) = (of(Shares::Equal), of(Shares::ByLength));
        assert!(by_length.longer <= 0.001 && equal.longer > 0.005, "{} {}", by_length.longer, equal.longer);
        let mean = |outcome: &Outcome| outcome.places.iter().sum::<f64>() / outcome.places.len() as f64;
        assert!(mean(&by_length) < mean(&equal));
    }
}
