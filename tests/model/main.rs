//! Model check of the payment flow.
//!
//! [`shop`] models `lua/payment`, `lua/wallet`, `lua/coupons/{reserve,redeem,return_issue}.lua` and
//! the decisions of `lua/seats/hold.lua` and the cancellation scripts, step by step, with the names
//! of `src/payment/flow.rs`, `src/payment/discount.rs` and `src/payment/cancel.rs`. [`walk`]
//! defines which step may come when. This file defines the invariants. The checker visits every
//! reachable state, so an invariant that holds here holds for every order of steps, lost replies,
//! repeated requests, crashes and sweeps. Each guard is also removed once, to show that the check
//! would notice.

mod shop;
mod walk;

use stateright::{Checker, HasDiscoveries, Model, Property};

use shop::{
    DebitRecord, ModelScenario, PAYMENTS, PaymentPhase, ReservationState, ScriptGuard, ShopState,
};
use walk::{ModelState, PaymentModel};

impl PaymentModel {
    /// The invariants of docs/guarantees.md that concern seats, wallets and payments.
    fn promises() -> Vec<Property<Self>> {
        vec![
            Property::always("money conserved", |walk, shop: &ModelState| {
                let rest = walk.at_rest(shop);
                let paid = rest.payments.iter().filter(|p| p.state == PaymentPhase::Confirmed);
                rest.balances.iter().sum::<i8>() + paid.map(|_| shop.play.cost()).sum::<i8>()
                    == rest.charged
            }),
            Property::always("no balance below zero", |_, shop: &ModelState| {
                shop.balances.iter().all(|balance| *balance >= 0)
            }),
            Property::always("one owner per seat", |_, shop: &ModelState| {
                let claims = |seat: usize| {
                    let of_seat = (0..2).filter(|r| shop.play.seat_of(*r) == seat);
                    let claims = of_seat.map(|r| shop.reservations[r]).filter(|r| match r.status {
                        ReservationState::Held => !r.lapsed,
                        ReservationState::Paying
                        | ReservationState::Confirmed
                        | ReservationState::Cancelling => true,
                        ReservationState::None
                        | ReservationState::Ended
                        | ReservationState::Cancelled => false,
                    });
                    claims.count()
                };
                (0..2).all(|seat| claims(seat) <= 1)
            }),
            Property::always("one effect per op id", |_, shop: &ModelState| {
                let once =
                    |effects: &[[u8; 2]; 3]| effects.iter().flatten().all(|count| *count <= 1);
                once(&shop.debits)
                    && once(&shop.refunds)
                    && shop.cancels.iter().all(|count| *count <= 1)
            }),
            Property::always("confirmed ⇔ debited ∧ seats sold", |walk, shop: &ModelState| {
                let paid_for = |shop: &ShopState| {
                    PAYMENTS.into_iter().all(|p| {
                        let (payment, r) = (shop.payments[p], shop::reservation_of(p));
                        let mark = shop.seats[shop.play.seat_of(r)];
                        payment.state != PaymentPhase::Confirmed
                            || shop.ops[p][payment.last()] == DebitRecord::Debited
                                && shop.reservations[r].status == ReservationState::Confirmed
                                && mark.is_some_and(|mark| mark.sold && mark.reservation == r)
                    })
                };
                let sold_is_paid = shop.seats.iter().flatten().all(|mark| {
                    let of_owner = PAYMENTS
                        .into_iter()
                        .filter(|p| shop::reservation_of(*p) == mark.reservation);
                    let paying = of_owner.filter(|p| {
                        matches!(
                            shop.payments[*p].state,
                            PaymentPhase::Confirmed | PaymentPhase::Refunding
                        )
                    });
                    !mark.sold || paying.count() == 1
                });
                let rest = walk.at_rest(shop);
                let debited_is_confirmed = PAYMENTS.into_iter().all(|p| {
                    (0..2).all(|attempt| {
                        rest.ops[p][attempt] != DebitRecord::Debited
                            || attempt == rest.payments[p].last()
                                && matches!(
                                    rest.payments[p].state,
                                    PaymentPhase::Confirmed | PaymentPhase::Refunded
                                )
                    })
                });
                paid_for(shop) && sold_is_paid && debited_is_confirmed
            }),
            Property::always("each payment has exactly one end", |walk, shop: &ModelState| {
                let ended = |pay| {
                    matches!(
                        pay,
                        PaymentPhase::None
                            | PaymentPhase::Confirmed
                            | PaymentPhase::TurnedBack
                            | PaymentPhase::Refunded
                    )
                };
                walk.at_rest(shop).payments.iter().all(|p| ended(p.state))
                    && shop.ends.iter().flatten().all(|count| *count <= 1)
            }),
            Property::always(
                "an issue is used by one confirmed payment or by none",
                |walk, shop: &ModelState| {
                    let confirmed = |shop: &ShopState| {
                        let all = PAYMENTS
                            .into_iter()
                            .filter(|p| shop.payments[*p].state == PaymentPhase::Confirmed);
                        all.collect::<Vec<_>>()
                    };
                    let rest = walk.at_rest(shop);
                    let user = rest.issue.map(|it| (it.payment, it.used));
                    walk.play == ModelScenario::OneSeat
                        || confirmed(shop).len() <= 1
                            && user == confirmed(&rest).first().map(|payment| (*payment, true))
                },
            ),
        ]
    }

    /// States that must be reachable. Otherwise doing nothing would satisfy the invariants.
    fn possibilities(&self) -> Vec<Property<Self>> {
        if self.play == ModelScenario::OneCoupon {
            return vec![
                Property::sometimes(
                    "a coupon that was given back pays for another seat",
                    |_, shop: &ModelState| {
                        shop.payments[0].state == PaymentPhase::Refunded
                            && shop.payments[2].state == PaymentPhase::Confirmed
                    },
                ),
                Property::sometimes("two payments ask for one coupon", |_, shop: &ModelState| {
                    shop.payments[0].state == PaymentPhase::Confirmed
                        && shop.payments[2].state == PaymentPhase::TurnedBack
                }),
            ];
        }
        vec![
            Property::sometimes("a further attempt is confirmed", |_, shop: &ModelState| {
                shop.payments.iter().any(|p| p.state == PaymentPhase::Confirmed && p.attempt == 2)
            }),
            Property::sometimes(
                "a hold lapses while it is paid for, and is sold",
                |_, shop: &ModelState| {
                    shop.reservations
                        .iter()
                        .any(|r| r.status == ReservationState::Confirmed && r.lapsed)
                },
            ),
            Property::sometimes("a lapsed seat is sold to the other", |_, shop: &ModelState| {
                shop.reservations[0].status == ReservationState::Ended
                    && shop.reservations[1].status == ReservationState::Confirmed
            }),
            Property::sometimes("a cancelled seat is sold again", |_, shop: &ModelState| {
                shop.reservations[0].status == ReservationState::Cancelled
                    && shop.reservations[1].status == ReservationState::Confirmed
            }),
        ]
    }
}

#[test]
fn every_promise_holds_in_every_state() {
    for play in [ModelScenario::OneSeat, ModelScenario::OneCoupon] {
        let checker = PaymentModel { play, off: None }.checker().threads(2).spawn_bfs().join();
        let (all, different) = (checker.state_count(), checker.unique_state_count());
        eprintln!("{play:?}: {all} states, {different} of them different");
        checker.assert_properties();
    }
}

/// Removes a guard and returns the invariants that break.
fn broken_without(guard: ScriptGuard) -> Vec<&'static str> {
    let walk = PaymentModel { play: guard.play(), off: Some(guard) };
    let checker =
        walk.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let promises: Vec<_> = PaymentModel::promises().iter().map(|promise| promise.name).collect();
    let mut broken = Vec::new();
    for (name, path) in checker.discoveries() {
        if promises.contains(&name) {
            let steps: Vec<_> = path.into_actions().into_iter().map(|action| action.step).collect();
            eprintln!("without {guard:?}, `{name}` breaks: {steps:?}");
            broken.push(name);
        }
    }
    broken
}

#[test]
fn removing_any_guard_breaks_a_promise() {
    for guard in ScriptGuard::ALL {
        assert!(!broken_without(guard).is_empty(), "nothing breaks without {guard:?}");
    }
}
