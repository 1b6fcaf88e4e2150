//! The payment flow, model-checked.
//!
//! [`shop`] is `lua/payment`, `lua/wallet`, `lua/coupons/{take,settle,give_back}.lua` and what `lua/seats/hold.lua` and `lua/payment/*cancel*.lua` decide, step by
//! step under the names that `src/payment/flow.rs`, `src/payment/discount.rs` and `src/payment/cancel.rs` give them; [`walk`] says which step may come when; here stand the promises. Every state that the
//! flow can come to is looked at, so a promise that holds here holds for every order of steps, lost replies, resends, crashes and sweeps.
//! And each guard is taken out once, to see that the check would notice.

mod shop;
mod walk;

use stateright::{Checker, HasDiscoveries, Model, Property};

use shop::{Guard, Op, PAYMENTS, Pay, Play, Res, Shop};
use walk::{State, Walk};

impl Walk {
    /// The table «Promises to prove», as far as it is about seats, wallets and payments.
    fn promises() -> Vec<Property<Self>> {
        vec![
            Property::always("money conserved", |walk, shop: &State| {
                let rest = walk.at_rest(shop);
                let paid = rest.payments.iter().filter(|p| p.state == Pay::Confirmed);
                rest.balances.iter().sum::<i8>() + paid.map(|_| shop.play.cost()).sum::<i8>()
                    == rest.charged
            }),
            Property::always("no balance below zero", |_, shop: &State| {
                shop.balances.iter().all(|balance| *balance >= 0)
            }),
            Property::always("one owner per seat", |_, shop: &State| {
                let claims = |seat: usize| {
                    let of_seat = (0..2).filter(|r| shop.play.seat_of(*r) == seat);
                    let claims = of_seat.map(|r| shop.reservations[r]).filter(|r| match r.status {
                        Res::Held => !r.lapsed,
                        Res::Paying | Res::Confirmed | Res::Cancelling => true,
                        Res::None | Res::Ended | Res::Cancelled => false,
                    });
                    claims.count()
                };
                (0..2).all(|seat| claims(seat) <= 1)
            }),
            Property::always("one effect per op id", |_, shop: &State| {
                let once =
                    |effects: &[[u8; 2]; 3]| effects.iter().flatten().all(|count| *count <= 1);
                once(&shop.debits)
                    && once(&shop.refunds)
                    && shop.cancels.iter().all(|count| *count <= 1)
            }),
            Property::always("confirmed ⇔ debited ∧ seats sold", |walk, shop: &State| {
                let paid_for = |shop: &Shop| {
                    PAYMENTS.into_iter().all(|p| {
                        let (payment, r) = (shop.payments[p], shop::reservation_of(p));
                        let mark = shop.seats[shop.play.seat_of(r)];
                        payment.state != Pay::Confirmed
                            || shop.ops[p][payment.last()] == Op::Debited
                                && shop.reservations[r].status == Res::Confirmed
                                && mark.is_some_and(|mark| mark.sold && mark.reservation == r)
                    })
                };
                let sold_is_paid = shop.seats.iter().flatten().all(|mark| {
                    let of_owner = PAYMENTS
                        .into_iter()
                        .filter(|p| shop::reservation_of(*p) == mark.reservation);
                    let paying = of_owner.filter(|p| {
                        matches!(shop.payments[*p].state, Pay::Confirmed | Pay::Refunding)
                    });
                    !mark.sold || paying.count() == 1
                });
                let rest = walk.at_rest(shop);
                let debited_is_confirmed = PAYMENTS.into_iter().all(|p| {
                    (0..2).all(|attempt| {
                        rest.ops[p][attempt] != Op::Debited
                            || attempt == rest.payments[p].last()
                                && matches!(rest.payments[p].state, Pay::Confirmed | Pay::Refunded)
                    })
                });
                paid_for(shop) && sold_is_paid && debited_is_confirmed
            }),
            Property::always("each payment reaches exactly one end", |walk, shop: &State| {
                let ended = |pay| {
                    matches!(pay, Pay::None | Pay::Confirmed | Pay::TurnedBack | Pay::Refunded)
                };
                walk.at_rest(shop).payments.iter().all(|p| ended(p.state))
                    && shop.ends.iter().flatten().all(|count| *count <= 1)
            }),
            Property::always(
                "an issue is used by one confirmed payment or by none",
                |walk, shop: &State| {
                    let confirmed = |shop: &Shop| {
                        let all = PAYMENTS
                            .into_iter()
                            .filter(|p| shop.payments[*p].state == Pay::Confirmed);
                        all.collect::<Vec<_>>()
                    };
                    let rest = walk.at_rest(shop);
                    let user = rest.issue.map(|it| (it.payment, it.used));
                    walk.play == Play::OneSeat
                        || confirmed(shop).len() <= 1
                            && user == confirmed(&rest).first().map(|payment| (*payment, true))
                },
            ),
        ]
    }

    /// What must be possible, or the promises would be kept by doing nothing.
    fn possibilities(&self) -> Vec<Property<Self>> {
        if self.play == Play::OneCoupon {
            return vec![
                Property::sometimes(
                    "a coupon that was given back pays for another seat",
                    |_, shop: &State| {
                        shop.payments[0].state == Pay::Refunded
                            && shop.payments[2].state == Pay::Confirmed
                    },
                ),
                Property::sometimes("two payments ask for one coupon", |_, shop: &State| {
                    shop.payments[0].state == Pay::Confirmed
                        && shop.payments[2].state == Pay::TurnedBack
                }),
            ];
        }
        vec![
            Property::sometimes("a further attempt is confirmed", |_, shop: &State| {
                shop.payments.iter().any(|p| p.state == Pay::Confirmed && p.attempt == 2)
            }),
            Property::sometimes(
                "a hold lapses while it is paid for, and is sold",
                |_, shop: &State| {
                    shop.reservations.iter().any(|r| r.status == Res::Confirmed && r.lapsed)
                },
            ),
            Property::sometimes("a lapsed seat is sold to the other", |_, shop: &State| {
                shop.reservations[0].status == Res::Ended
                    && shop.reservations[1].status == Res::Confirmed
            }),
            Property::sometimes("a cancelled seat is sold again", |_, shop: &State| {
                shop.reservations[0].status == Res::Cancelled
                    && shop.reservations[1].status == Res::Confirmed
            }),
        ]
    }
}

#[test]
fn every_promise_holds_in_every_state() {
    for play in [Play::OneSeat, Play::OneCoupon] {
        let checker = Walk { play, off: None }.checker().threads(2).spawn_bfs().join();
        let (all, different) = (checker.state_count(), checker.unique_state_count());
        eprintln!("{play:?}: {all} states, {different} of them different");
        checker.assert_properties();
    }
}

/// Takes a guard out and gives the promises that break.
fn broken_without(guard: Guard) -> Vec<&'static str> {
    let walk = Walk { play: guard.play(), off: Some(guard) };
    let checker =
        walk.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let promises: Vec<_> = Walk::promises().iter().map(|promise| promise.name).collect();
    let mut broken = Vec::new();
    for (name, path) in checker.discoveries() {
        if promises.contains(&name) {
            let steps: Vec<_> = path.into_actions().into_iter().map(|action| action.step).collect();
            eprintln!("without {guard:?}, «{name}» breaks: {steps:?}");
            broken.push(name);
        }
    }
    broken
}

#[test]
fn no_guard_can_be_taken_out() {
    for guard in Guard::ALL {
        assert!(!broken_without(guard).is_empty(), "nothing breaks without {guard:?}");
    }
}
