//! Each check stays green on a sound crowd and goes red on the violation planted for it, and no other does.

use super::*;

const SIZES: Sizes = Sizes { seats: 100, max_active: 50, quota: 40 };

/// A hundred users who come every ten milliseconds, wait two seconds in order, and buy the seat of their number.
fn buyers() -> (Vec<Seen>, Public) {
    let one = |n: u64| Seen {
        came: (n * 10_000, n * 10_000 + 2_000),
        waited: Some(n * 10_000 + 1_900_000),
        active: Some(n * 10_000 + 2_000_000),
        over: Some(n * 10_000 + 2_100_000),
        seat: Some(n + 1),
        won: Some(n * 10_000 + 2_200_000),
        charged: 1_000,
        paid: 1_000,
        balance: Some(0),
        end: End::Won,
        ..Seen::new(n)
    };
    ((0..100).map(one).collect(), Public { sold: (1..=100).collect(), issued: 0 })
}

/// A hundred users who come one after another; the first forty win.
fn hunters() -> (Vec<Seen>, Public) {
    let one = |n: u64| {
        let issue = (n < SIZES.quota).then(|| format!("issue-{n}"));
        let end = if issue.is_some() { End::Won } else { End::SoldOut };
        Seen { came: (n * 10, n * 10 + 5), issue, end, ..Seen::new(n) }
    };
    ((0..100).map(one).collect(), Public { sold: Vec::new(), issued: SIZES.quota })
}

fn broken(checks: &[Check]) -> Vec<&'static str> {
    checks.iter().filter(|check| !check.kept).map(|check| check.name).collect()
}

fn broken_sale(plant: impl FnOnce(&mut Vec<Seen>, &mut Public)) -> Vec<&'static str> {
    let (mut seen, mut public) = buyers();
    plant(&mut seen, &mut public);
    broken(&journeys(&seen, &public, SIZES))
}

fn broken_rush(plant: impl FnOnce(&mut Vec<Seen>, &mut Public)) -> Vec<&'static str> {
    let (mut seen, mut public) = hunters();
    plant(&mut seen, &mut public);
    broken(&coupons(&seen, &public, SIZES))
}

#[test]
fn a_sound_crowd_breaks_nothing() {
    assert_eq!(broken_sale(|_, _| {}), [""; 0]);
    assert_eq!(broken_rush(|_, _| {}), [""; 0]);
    assert_eq!(broken(&polls(&buyers().0)), [""; 0]);
}

#[test]
fn a_seat_with_two_owners_is_found() {
    let twice = broken_sale(|seen, public| {
        seen[7].seat = seen[8].seat;
        public.sold.retain(|seat| *seat != 8);
    });
    assert_eq!(twice, ["no seat sold twice, sold ≤ seats"]);
    let beyond = broken_sale(|seen, public| {
        seen[7].seat = Some(101);
        public.sold[7] = 101;
    });
    assert_eq!(beyond, ["no seat sold twice, sold ≤ seats"]);
}

#[test]
fn a_lost_row_and_a_row_too_many_are_found() {
    let name = ["the operator's list = what buyers were told"];
    assert_eq!(broken_sale(|_, public| public.sold.truncate(99)), name);
    assert_eq!(broken_sale(|seen, _| seen[3].seat = None), name);
    // Who never got the answer to their payment may have bought.
    let unsure = broken_sale(|seen, _| {
        seen[3].seat = None;
        seen[3].end = End::Failed;
    });
    assert_eq!(unsure, ["nobody failed"]);
}

#[test]
fn money_that_comes_or_goes_is_found() {
    assert_eq!(broken_sale(|seen, _| seen[3].balance = Some(1)), ["each buyer: charged = paid + balance"]);
    assert_eq!(broken_sale(|seen, _| seen[3].paid = 2_000), ["each buyer: charged = paid + balance"]);
}

#[test]
fn who_overtakes_is_found() {
    // Number 80 is let in as the first, and dozens who came before them still hear «waiting» a second later.
    let overtaken = broken_sale(|seen, _| seen[80].active = Some(900_000));
    assert_eq!(overtaken, ["let in by order of arrival"]);
    // Two who came at the same time have no order.
    let together = broken_sale(|seen, _| {
        for user in seen.iter_mut() {
            user.came = (0, 2_000);
        }
        seen[80].active = Some(900_000);
    });
    assert_eq!(together, [""; 0]);
}

#[test]
fn too_many_inside_are_found() {
    let crowded =
        broken_sale(|seen, _| seen.iter_mut().take(51).for_each(|user| user.over = Some(10_000_000)));
    assert_eq!(crowded, ["inside at once ≤ max_active"]);
}

#[test]
fn a_rising_position_a_second_place_and_a_failure_are_found() {
    assert_eq!(broken_sale(|seen, _| seen[3].rose = true), ["no position goes up"]);
    assert_eq!(
        broken(&polls(&[Seen { rose: true, end: End::Stayed, ..Seen::new(0) }])),
        ["no position goes up"]
    );
    assert_eq!(broken_sale(|seen, _| seen[3].doubled = true), ["one place per user"]);
    assert_eq!(broken_sale(|seen, _| seen[3].end = End::Failed), ["nobody failed"]);
}

#[test]
fn one_coupon_too_many_or_too_few_is_found() {
    let more = broken_rush(|seen, public| {
        seen[40].issue = Some("one-more".to_owned());
        seen[40].end = End::Won;
        public.issued = 41;
    });
    assert_eq!(more, ["issued = quota"]);
    assert_eq!(broken_rush(|_, public| public.issued = 39), ["issued = quota"]);
    let fewer = broken_rush(|seen, public| {
        seen[39].issue = None;
        public.issued = 39;
    });
    assert_eq!(fewer, ["issued = quota"]);
}

#[test]
fn one_issue_of_two_owners_a_late_winner_and_another_answer_are_found() {
    assert_eq!(broken_rush(|seen, _| seen[3].issue = seen[4].issue.clone()), ["each issue has one owner"]);
    assert_eq!(broken_rush(|seen, _| seen[3].came = (900, 905)), ["none after the first «sold out»"]);
    assert_eq!(broken_rush(|seen, _| seen[60].doubled = true), ["a second click gets the same answer"]);
}
