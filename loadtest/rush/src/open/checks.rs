//! What was promised, judged by what the users saw and by what the service says in public. Nothing here looks into Redis or MySQL.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::seen::{End, Seen};

/// How old a «waiting» may be: the service promises 250 ms, and a machine that is full takes its time.
const STALE_US: u64 = 500_000;
/// Violations that are told one by one.
const TOLD: usize = 3;

/// What the service says when all is over.
#[derive(Debug, Clone, Default)]
pub(crate) struct Public {
    /// The seats of confirmed reservations, from the operator's list.
    pub(crate) sold: Vec<u64>,
    /// `issued_quantity` of the coupon.
    pub(crate) issued: u64,
}

/// The sizes that the service was told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) seats: u64,
    pub(crate) max_active: u64,
    pub(crate) quota: u64,
}

/// A promise and whether it was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Check {
    pub(crate) name: &'static str,
    pub(crate) kept: bool,
    pub(crate) detail: String,
}

fn check(name: &'static str, wrong: Vec<String>, well: String) -> Check {
    let kept = wrong.is_empty();
    let more = wrong.len().saturating_sub(TOLD);
    let mut detail = wrong.into_iter().take(TOLD).collect::<Vec<_>>().join("; ");
    if more > 0 {
        detail.push_str(&format!("; and {more} more"));
    }
    Check { name, kept, detail: if kept { well } else { detail } }
}

/// The promises to a crowd that buys seats.
pub(crate) fn journeys(seen: &[Seen], public: &Public, sizes: Sizes) -> Vec<Check> {
    vec![
        seats(seen, sizes),
        rows(seen, public),
        money(seen),
        order(seen),
        cap(seen, sizes),
        rising(seen),
        places(seen),
        ends(seen),
    ]
}

/// The promises to a crowd that wants coupons.
pub(crate) fn coupons(seen: &[Seen], public: &Public, sizes: Sizes) -> Vec<Check> {
    vec![quota(seen, public, sizes), issues(seen), first_come(seen), twice(seen), ends(seen)]
}

/// The promises to those who wait.
pub(crate) fn polls(seen: &[Seen]) -> Vec<Check> {
    vec![rising(seen), ends(seen)]
}

fn seats(seen: &[Seen], sizes: Sizes) -> Check {
    let mut owners = BTreeMap::<u64, Vec<u64>>::new();
    for (seat, user) in seen.iter().filter_map(|user| Some((user.seat?, user.n))) {
        owners.entry(seat).or_default().push(user);
    }
    let sold = owners.len();
    let twice = owners.iter().filter(|(_, users)| users.len() > 1);
    let mut wrong: Vec<_> =
        twice.map(|(seat, users)| format!("seat {seat} was sold to users {users:?}")).collect();
    let beyond = owners.keys().filter(|seat| !(1..=sizes.seats).contains(*seat));
    wrong.extend(beyond.map(|seat| format!("seat {seat} was sold and is not there")));
    check("no seat sold twice, sold ≤ seats", wrong, format!("{sold} of {} seats sold", sizes.seats))
}

fn rows(seen: &[Seen], public: &Public) -> Check {
    let told: BTreeSet<_> = seen.iter().filter_map(|user| user.seat).collect();
    let listed: BTreeSet<_> = public.sold.iter().copied().collect();
    let lost = told
        .difference(&listed)
        .map(|seat| format!("seat {seat} was confirmed to its buyer and is not listed"));
    let mut wrong: Vec<_> = lost.collect();
    // A user who got no answer to the payment may have bought all the same.
    let unsure = seen.iter().filter(|user| user.end == End::Failed).count();
    let extra: Vec<_> = listed.difference(&told).collect();
    if extra.len() > unsure {
        wrong.push(format!("{} seats are listed as sold that nobody was told of: {extra:?}", extra.len()));
    }
    check("the operator's list = what buyers were told", wrong, format!("{} seats on both sides", told.len()))
}

fn money(seen: &[Seen]) -> Check {
    let asked = seen.iter().filter_map(|user| Some((user, user.balance?)));
    let (mut wrong, mut sums) = (Vec::new(), (0, 0, 0));
    for (user, balance) in asked {
        sums = (sums.0 + user.charged, sums.1 + user.paid, sums.2 + balance);
        if balance + user.paid != user.charged {
            wrong
                .push(format!("user {} charged {}, paid {}, has {balance}", user.n, user.charged, user.paid));
        }
    }
    check(
        "each buyer: charged = paid + balance",
        wrong,
        format!("charged {} = paid {} + left {}", sums.0, sums.1, sums.2),
    )
}

/// Whoever came only after another had their place must not be let in before them: nobody may still be told «waiting» after someone
/// who came later was told «active».
fn order(seen: &[Seen]) -> Check {
    let mut came: Vec<_> = seen.iter().filter_map(|user| Some((user.came.0, user.active?, user.n))).collect();
    came.sort_unstable();
    // From each one on, the earliest admission of anybody who came then or later.
    let mut earliest = vec![(u64::MAX, 0); came.len() + 1];
    for (at, (_, active, n)) in came.iter().enumerate().rev() {
        earliest[at] = earliest[at + 1].min((*active, *n));
    }
    let mut wrong = Vec::new();
    for (user, waited) in seen.iter().filter_map(|user| Some((user, user.waited?))) {
        let later = came.partition_point(|(sent, ..)| *sent <= user.came.1);
        let (active, other) = earliest[later];
        if active.saturating_add(STALE_US) < waited {
            let ms = (waited - active) / 1_000;
            wrong.push(format!(
                "user {} waited {ms} ms after user {other}, who came later, was let in",
                user.n
            ));
        }
    }
    check("let in by order of arrival", wrong, format!("{} let in", came.len()))
}

/// From the answer that says «active» to the request that ends the turn a user holds a slot for certain.
fn cap(seen: &[Seen], sizes: Sizes) -> Check {
    let inside =
        seen.iter().filter_map(|user| Some((user.active?, user.over?))).filter(|(from, to)| from < to);
    let mut moves: Vec<_> = inside.flat_map(|(from, to)| [(from, 1_i64), (to, -1)]).collect();
    // Who goes at the same microsecond goes first.
    moves.sort_unstable();
    let (mut now, mut most) = (0, 0);
    for (_, step) in moves {
        now += step;
        most = most.max(now);
    }
    let cap = i64::try_from(sizes.max_active).unwrap_or(i64::MAX);
    let wrong = (most > cap).then(|| format!("{most} were inside at once of {cap} allowed"));
    check(
        "inside at once ≤ max_active",
        wrong.into_iter().collect(),
        format!("{most} at most were seen inside, {cap} allowed"),
    )
}

fn rising(seen: &[Seen]) -> Check {
    let wrong =
        seen.iter().filter(|user| user.rose).map(|user| format!("the position of user {} went up", user.n));
    check("no position goes up", wrong.collect(), format!("{} users", seen.len()))
}

fn places(seen: &[Seen]) -> Check {
    let wrong = seen
        .iter()
        .filter(|user| user.doubled)
        .map(|user| format!("user {} got two places by two clicks", user.n));
    check("one place per user", wrong.collect(), "each second click got the first one's token".to_owned())
}

fn quota(seen: &[Seen], public: &Public, sizes: Sizes) -> Check {
    let won = seen.iter().filter(|user| user.issue.is_some()).count() as u64;
    let wanted = sizes.quota.min(seen.len() as u64);
    let mut wrong = Vec::new();
    if won != wanted {
        wrong.push(format!("{won} users got one, and it should be {wanted}"));
    }
    if public.issued != won {
        wrong.push(format!("the service says {}, the users have {won}", public.issued));
    }
    check("issued = quota", wrong, format!("{won} of {} issued to {} users", sizes.quota, seen.len()))
}

fn issues(seen: &[Seen]) -> Check {
    let mut ids = HashSet::new();
    let twice = seen.iter().filter_map(|user| user.issue.as_ref()).filter(|id| !ids.insert(*id));
    let wrong: Vec<_> = twice.map(|id| format!("issue {id} went to two users")).collect();
    check("each issue has one owner", wrong, format!("{} issues", ids.len()))
}

/// Once somebody has heard «sold out», nobody who asks only then may get one.
fn first_come(seen: &[Seen]) -> Check {
    let over =
        seen.iter().filter(|user| user.end == End::SoldOut).map(|user| user.came.1).min().unwrap_or(u64::MAX);
    let late = seen.iter().filter(|user| user.issue.is_some() && user.came.0 > over);
    let wrong: Vec<_> =
        late.map(|user| format!("user {} asked after the first «sold out» and got one", user.n)).collect();
    check("none after the first «sold out»", wrong, "winners had all asked before it".to_owned())
}

fn twice(seen: &[Seen]) -> Check {
    let wrong = seen
        .iter()
        .filter(|user| user.doubled)
        .map(|user| format!("user {}: the second click got another answer", user.n));
    check(
        "a second click gets the same answer",
        wrong.collect(),
        format!("{} users clicked twice", seen.len()),
    )
}

fn ends(seen: &[Seen]) -> Check {
    let failed = seen
        .iter()
        .filter(|user| user.end == End::Failed)
        .map(|user| format!("user {} got an answer that nobody should get", user.n));
    check("nobody failed", failed.collect(), format!("{} users", seen.len()))
}

#[cfg(test)]
#[path = "checks_tests.rs"]
mod tests;
