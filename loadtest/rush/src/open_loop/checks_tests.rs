//! Each check passes on a valid run, and only the matching check finds a planted violation.

use super::*;

const SIZES: LoadSizes = LoadSizes { seats: 100, max_active: 50, quota: 40 };

/// 100 users arrive every ten milliseconds, wait two seconds in order, and buy the seat of their
/// number.
fn buyers() -> (Vec<UserObservation>, PublishedResult) {
    let buyer = |number: u64| UserObservation {
        arrival: (number * 10_000, number * 10_000 + 2_000),
        last_waiting: Some(number * 10_000 + 1_900_000),
        active: Some(number * 10_000 + 2_000_000),
        active_end: Some(number * 10_000 + 2_100_000),
        seat: Some(number + 1),
        charged: 1_000,
        paid: 1_000,
        balance: Some(0),
        outcome: UserOutcome::Won,
        ..UserObservation::new(number)
    };
    ((0..100).map(buyer).collect(), PublishedResult { sold: (1..=100).collect(), issued: 0 })
}

/// 100 users arrive one after the other; the first 40 get a coupon.
fn coupon_users() -> (Vec<UserObservation>, PublishedResult) {
    let user = |number: u64| {
        let issue = (number < SIZES.quota).then(|| format!("issue-{number}"));
        let outcome = if issue.is_some() { UserOutcome::Won } else { UserOutcome::SoldOut };
        let arrival = (number * 10, number * 10 + 5);
        UserObservation { arrival, issue, outcome, ..UserObservation::new(number) }
    };
    ((0..100).map(user).collect(), PublishedResult { sold: Vec::new(), issued: SIZES.quota })
}

fn broken(checks: &[PromiseCheck]) -> Vec<&'static str> {
    checks.iter().filter(|check| !check.kept).map(|check| check.name).collect()
}

fn broken_in_sale(
    plant: impl FnOnce(&mut Vec<UserObservation>, &mut PublishedResult),
) -> Vec<&'static str> {
    let (mut users, mut published) = buyers();
    plant(&mut users, &mut published);
    broken(&journeys(&users, &published, SIZES))
}

fn broken_in_coupons(
    plant: impl FnOnce(&mut Vec<UserObservation>, &mut PublishedResult),
) -> Vec<&'static str> {
    let (mut users, mut published) = coupon_users();
    plant(&mut users, &mut published);
    broken(&coupons(&users, &published, SIZES))
}

#[test]
fn valid_run_breaks_no_promise() {
    assert_eq!(broken_in_sale(|_, _| {}), [""; 0]);
    assert_eq!(broken_in_coupons(|_, _| {}), [""; 0]);
    assert_eq!(broken(&polls(&buyers().0)), [""; 0]);
}

#[test]
fn seat_with_two_owners_is_found() {
    let twice = broken_in_sale(|users, published| {
        users[7].seat = users[8].seat;
        published.sold.retain(|seat| *seat != 8);
    });
    assert_eq!(twice, ["no seat is sold twice"]);
    let unknown = broken_in_sale(|users, published| {
        users[7].seat = Some(101);
        published.sold[7] = 101;
    });
    assert_eq!(unknown, ["no seat is sold twice"]);
}

#[test]
fn missing_and_extra_rows_are_found() {
    let name = ["the admin list equals what buyers were told"];
    assert_eq!(broken_in_sale(|_, published| published.sold.truncate(99)), name);
    assert_eq!(broken_in_sale(|users, _| users[3].seat = None), name);
    // A user without an answer to the payment may have bought a seat.
    let unsure = broken_in_sale(|users, _| {
        users[3].seat = None;
        users[3].outcome = UserOutcome::Failed;
    });
    assert_eq!(unsure, ["no request failed"]);
}

#[test]
fn wrong_balance_is_found() {
    let name = ["each wallet: charged = paid + balance"];
    assert_eq!(broken_in_sale(|users, _| users[3].balance = Some(1)), name);
    assert_eq!(broken_in_sale(|users, _| users[3].paid = 2_000), name);
}

#[test]
fn overtaking_is_found() {
    // User 80 is admitted first, and dozens of earlier users still wait a second later.
    let overtaken = broken_in_sale(|users, _| users[80].active = Some(900_000));
    assert_eq!(overtaken, ["users are admitted in order of arrival"]);
    // Users who arrive at the same time have no order.
    let together = broken_in_sale(|users, _| {
        users.iter_mut().for_each(|user| user.arrival = (0, 2_000));
        users[80].active = Some(900_000);
    });
    assert_eq!(together, [""; 0]);
}

#[test]
fn too_many_active_users_are_found() {
    let crowded = broken_in_sale(|users, _| {
        users.iter_mut().take(51).for_each(|user| user.active_end = Some(10_000_000));
    });
    assert_eq!(crowded, ["active users ≤ max_active"]);
}

#[test]
fn rising_position_second_token_and_failure_are_found() {
    let rose = broken_in_sale(|users, _| users[3].position_rose = true);
    assert_eq!(rose, ["no position rises"]);
    let mut waiting = UserObservation::new(0);
    (waiting.position_rose, waiting.outcome) = (true, UserOutcome::StillWaiting);
    assert_eq!(broken(&polls(&[waiting])), ["no position rises"]);
    let repeated = broken_in_sale(|users, _| users[3].repeat_differed = true);
    assert_eq!(repeated, ["one token per user"]);
    let failed = broken_in_sale(|users, _| users[3].outcome = UserOutcome::Failed);
    assert_eq!(failed, ["no request failed"]);
}

#[test]
fn wrong_number_of_coupons_is_found() {
    let more = broken_in_coupons(|users, published| {
        users[40].issue = Some("one-more".to_owned());
        users[40].outcome = UserOutcome::Won;
        published.issued = 41;
    });
    assert_eq!(more, ["issued = quota"]);
    assert_eq!(broken_in_coupons(|_, published| published.issued = 39), ["issued = quota"]);
    let fewer = broken_in_coupons(|users, published| {
        users[39].issue = None;
        published.issued = 39;
    });
    assert_eq!(fewer, ["issued = quota"]);
}

#[test]
fn shared_issue_late_winner_and_different_answer_are_found() {
    let shared = broken_in_coupons(|users, _| users[3].issue = users[4].issue.clone());
    assert_eq!(shared, ["each issue has one owner"]);
    let late = broken_in_coupons(|users, _| users[3].arrival = (900, 905));
    assert_eq!(late, ["none is issued after the first refusal"]);
    let different = broken_in_coupons(|users, _| users[60].repeat_differed = true);
    assert_eq!(different, ["a repeated request gets the same answer"]);
}
