//! Checks the promises of the service by what the users observed and by what the service publishes.
//! Nothing here reads Redis or MySQL.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::observation::{UserObservation, UserOutcome};

/// Maximum age of a `waiting` answer: the service promises 250 ms, a saturated machine needs more.
const MAX_TICKET_AGE_US: u64 = 500_000;
/// Violations that are listed in full.
const MAX_LISTED_VIOLATIONS: usize = 3;

/// What the service publishes after the run.
#[derive(Debug, Clone, Default)]
pub(super) struct PublishedResult {
    /// Seats of confirmed reservations, from the admin list.
    pub(super) sold: Vec<u64>,
    /// `issued_quantity` of the coupon.
    pub(super) issued: u64,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct LoadSizes {
    pub(super) seats: u64,
    pub(super) max_active: u64,
    pub(super) quota: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PromiseCheck {
    pub(super) name: &'static str,
    pub(super) kept: bool,
    pub(super) detail: String,
}

impl PromiseCheck {
    fn new(name: &'static str, violations: Vec<String>, summary: String) -> Self {
        if violations.is_empty() {
            return Self { name, kept: true, detail: summary };
        }
        let more = violations.len().saturating_sub(MAX_LISTED_VIOLATIONS);
        let listed: Vec<_> = violations.into_iter().take(MAX_LISTED_VIOLATIONS).collect();
        let mut detail = listed.join("; ");
        if more > 0 {
            detail.push_str(&format!("; and {more} more"));
        }
        Self { name, kept: false, detail }
    }
}

pub(super) fn journeys(
    users: &[UserObservation],
    published: &PublishedResult,
    sizes: LoadSizes,
) -> Vec<PromiseCheck> {
    vec![
        seats_sold_once(users, sizes),
        admin_list_agrees(users, published),
        wallets_balance(users),
        admitted_in_order(users),
        active_within_limit(users, sizes),
        positions_never_rise(users),
        one_token_per_user(users),
        no_user_failed(users),
    ]
}

pub(super) fn coupons(
    users: &[UserObservation],
    published: &PublishedResult,
    sizes: LoadSizes,
) -> Vec<PromiseCheck> {
    vec![
        quota_issued(users, published, sizes),
        issues_have_one_owner(users),
        none_issued_after_sold_out(users),
        repeats_get_the_same_answer(users),
        no_user_failed(users),
    ]
}

pub(super) fn polls(users: &[UserObservation]) -> Vec<PromiseCheck> {
    vec![positions_never_rise(users), no_user_failed(users)]
}

fn seats_sold_once(users: &[UserObservation], sizes: LoadSizes) -> PromiseCheck {
    let mut owners = BTreeMap::<u64, Vec<u64>>::new();
    for (seat, user) in users.iter().filter_map(|user| Some((user.seat?, user.number))) {
        owners.entry(seat).or_default().push(user);
    }
    let sold_twice = owners.iter().filter(|(_, users)| users.len() > 1);
    let mut violations: Vec<_> = sold_twice
        .map(|(seat, users)| format!("seat {seat} was sold to users {users:?}"))
        .collect();
    let unknown = owners.keys().filter(|seat| !(1..=sizes.seats).contains(*seat));
    violations.extend(unknown.map(|seat| format!("seat {seat} was sold and does not exist")));
    let summary = format!("{} of {} seats sold", owners.len(), sizes.seats);
    PromiseCheck::new("no seat is sold twice", violations, summary)
}

fn admin_list_agrees(users: &[UserObservation], published: &PublishedResult) -> PromiseCheck {
    let confirmed: BTreeSet<_> = users.iter().filter_map(|user| user.seat).collect();
    let listed: BTreeSet<_> = published.sold.iter().copied().collect();
    let missing = confirmed.difference(&listed);
    let mut violations: Vec<_> = missing
        .map(|seat| format!("seat {seat} was confirmed to its buyer and is not listed"))
        .collect();
    // A user who got no answer to the payment may have bought a seat nevertheless.
    let unsure = users.iter().filter(|user| user.outcome == UserOutcome::Failed).count();
    let extra: Vec<_> = listed.difference(&confirmed).collect();
    if extra.len() > unsure {
        violations
            .push(format!("{} listed seats were confirmed to no user: {extra:?}", extra.len()));
    }
    let summary = format!("{} seats in both", confirmed.len());
    PromiseCheck::new("the admin list equals what buyers were told", violations, summary)
}

fn wallets_balance(users: &[UserObservation]) -> PromiseCheck {
    let (mut violations, mut sums) = (Vec::new(), (0, 0, 0));
    for (user, balance) in users.iter().filter_map(|user| Some((user, user.balance?))) {
        sums = (sums.0 + user.charged, sums.1 + user.paid, sums.2 + balance);
        if balance + user.paid != user.charged {
            violations.push(format!(
                "user {} charged {}, paid {}, has {balance}",
                user.number, user.charged, user.paid
            ));
        }
    }
    let summary = format!("charged {} = paid {} + balance {}", sums.0, sums.1, sums.2);
    PromiseCheck::new("each wallet: charged = paid + balance", violations, summary)
}

/// A user must not be `waiting` after a user was admitted who arrived later. Later means: sent the
/// join after the other user's join was answered.
fn admitted_in_order(users: &[UserObservation]) -> PromiseCheck {
    let admitted = |user: &UserObservation| Some((user.arrival.0, user.active?, user.number));
    let mut arrivals: Vec<_> = users.iter().filter_map(admitted).collect();
    arrivals.sort_unstable();
    // For each arrival: the earliest admission among it and all later arrivals.
    let mut earliest = vec![(u64::MAX, 0); arrivals.len() + 1];
    for (index, (_, active, number)) in arrivals.iter().enumerate().rev() {
        earliest[index] = earliest[index + 1].min((*active, *number));
    }
    let mut violations = Vec::new();
    for (user, waiting) in users.iter().filter_map(|user| Some((user, user.last_waiting?))) {
        let later = arrivals.partition_point(|(sent, ..)| *sent <= user.arrival.1);
        let (active, other) = earliest[later];
        if active.saturating_add(MAX_TICKET_AGE_US) < waiting {
            let ms = (waiting - active) / 1_000;
            violations.push(format!(
                "user {} waited {ms} ms after user {other}, who arrived later, was admitted",
                user.number
            ));
        }
    }
    let summary = format!("{} admitted", arrivals.len());
    PromiseCheck::new("users are admitted in order of arrival", violations, summary)
}

/// A user is certainly active from the response with `active` to the request that ends it.
fn active_within_limit(users: &[UserObservation], sizes: LoadSizes) -> PromiseCheck {
    let active = users.iter().filter_map(|user| Some((user.active?, user.active_end?)));
    let active = active.filter(|(from, to)| from < to);
    let mut changes: Vec<_> = active.flat_map(|(from, to)| [(from, 1_i64), (to, -1)]).collect();
    // In the same microsecond, users who leave sort before users who enter.
    changes.sort_unstable();
    let (mut now, mut highest) = (0, 0);
    for (_, change) in changes {
        now += change;
        highest = highest.max(now);
    }
    let limit = i64::try_from(sizes.max_active).unwrap_or(i64::MAX);
    let violation =
        (highest > limit).then(|| format!("{highest} were active, {limit} are allowed"));
    let summary = format!("at most {highest} were active, {limit} are allowed");
    PromiseCheck::new("active users ≤ max_active", violation.into_iter().collect(), summary)
}

fn positions_never_rise(users: &[UserObservation]) -> PromiseCheck {
    let rose = users.iter().filter(|user| user.position_rose);
    let violations =
        rose.map(|user| format!("the position of user {} rose", user.number)).collect();
    PromiseCheck::new("no position rises", violations, format!("{} users", users.len()))
}

fn one_token_per_user(users: &[UserObservation]) -> PromiseCheck {
    let differed = users.iter().filter(|user| user.repeat_differed);
    let violations = differed.map(|user| format!("user {} got two tokens", user.number)).collect();
    let summary = "repeated joins got the first token".to_owned();
    PromiseCheck::new("one token per user", violations, summary)
}

fn quota_issued(
    users: &[UserObservation],
    published: &PublishedResult,
    sizes: LoadSizes,
) -> PromiseCheck {
    let won = users.iter().filter(|user| user.issue.is_some()).count() as u64;
    let expected = sizes.quota.min(users.len() as u64);
    let mut violations = Vec::new();
    if won != expected {
        violations.push(format!("{won} users got a coupon, expected {expected}"));
    }
    if published.issued != won {
        violations.push(format!("the service reports {}, users got {won}", published.issued));
    }
    let summary = format!("{won} of {} issued to {} users", sizes.quota, users.len());
    PromiseCheck::new("issued = quota", violations, summary)
}

fn issues_have_one_owner(users: &[UserObservation]) -> PromiseCheck {
    let mut ids = HashSet::new();
    let repeated =
        users.iter().filter_map(|user| user.issue.as_ref()).filter(|id| !ids.insert(*id));
    let violations: Vec<_> = repeated.map(|id| format!("issue {id} has two owners")).collect();
    PromiseCheck::new("each issue has one owner", violations, format!("{} issues", ids.len()))
}

/// After one user was told that the coupon is sold out, no later request may get one.
fn none_issued_after_sold_out(users: &[UserObservation]) -> PromiseCheck {
    let sold_out = users.iter().filter(|user| user.outcome == UserOutcome::SoldOut);
    let first = sold_out.map(|user| user.arrival.1).min().unwrap_or(u64::MAX);
    let late = users.iter().filter(|user| user.issue.is_some() && user.arrival.0 > first);
    let violations =
        late.map(|user| format!("user {} got one after the first refusal", user.number)).collect();
    let summary = "all winners asked before the first refusal".to_owned();
    PromiseCheck::new("none is issued after the first refusal", violations, summary)
}

fn repeats_get_the_same_answer(users: &[UserObservation]) -> PromiseCheck {
    let differed = users.iter().filter(|user| user.repeat_differed);
    let violations =
        differed.map(|user| format!("user {}: the second answer differs", user.number)).collect();
    let summary = format!("{} users asked twice", users.len());
    PromiseCheck::new("a repeated request gets the same answer", violations, summary)
}

fn no_user_failed(users: &[UserObservation]) -> PromiseCheck {
    let failed = users.iter().filter(|user| user.outcome == UserOutcome::Failed);
    let violations =
        failed.map(|user| format!("user {} got an unexpected response", user.number)).collect();
    PromiseCheck::new("no request failed", violations, format!("{} users", users.len()))
}

#[cfg(test)]
#[path = "checks_tests.rs"]
mod tests;
