//! Model check of the payment flow.
//!
//! [`state`] models `lua/payment`, `lua/wallet`, `lua/coupons/{reserve,redeem,return_issue}.lua` and
//! the decisions of `lua/seats/hold.lua` and the cancellation scripts, step by step, with the names
//! of `src/payment/flow.rs`, `src/payment/discount.rs` and `src/payment/cancel.rs`. A payment without
//! a coupon may be made in one call, in steps, or in both ways by two instances. [`steps`]
//! defines which step may come when. This file defines the invariants. The checker visits every
//! reachable state, so an invariant that holds here holds for every order of steps, lost replies,
//! repeated requests, crashes and sweeps. Each guard is also removed once, to show that the check
//! would notice. [`partial`] does the same for the cancellation of some seats, and [`external`] for
//! payments that wait for a provider.

mod external;
mod partial;
mod state;
mod steps;

use stateright::{Checker, HasDiscoveries, Model, Property};

use state::{
    DebitRecord, ModelScenario, PAYMENTS, PaymentPhase, RedisState, ReservationState, ScriptGuard,
};
use steps::{ModelState, PaymentModel};

impl PaymentModel {
    /// The invariants of docs/guarantees.md that concern seats, wallets and payments.
    fn invariants() -> Vec<Property<Self>> {
        vec![
            Property::always("money conserved", |model, redis: &ModelState| {
                let rest = model.final_state(redis);
                let paid = rest.payments.iter().filter(|p| p.state == PaymentPhase::Confirmed);
                rest.balances.iter().sum::<i8>() + paid.map(|_| redis.scenario.cost()).sum::<i8>()
                    == rest.charged
            }),
            Property::always("no balance below zero", |_, redis: &ModelState| {
                redis.balances.iter().all(|balance| *balance >= 0)
            }),
            Property::always("one owner per seat", |_, redis: &ModelState| {
                let claims = |seat: usize| {
                    let of_seat = (0..2).filter(|r| redis.scenario.seat_of(*r) == seat);
                    let claims =
                        of_seat.map(|r| redis.reservations[r]).filter(|r| match r.status {
                            ReservationState::Held => !r.expired,
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
            Property::always("one effect per op id", |_, redis: &ModelState| {
                let once =
                    |effects: &[[u8; 2]; 3]| effects.iter().flatten().all(|count| *count <= 1);
                once(&redis.debits)
                    && once(&redis.refunds)
                    && redis.cancels.iter().all(|count| *count <= 1)
            }),
            Property::always(
                "confirmed ⇔ debited ∧ seats sold",
                |model, redis: &ModelState| {
                    let paid_for = |redis: &RedisState| {
                        PAYMENTS.into_iter().all(|p| {
                            let (payment, r) = (redis.payments[p], state::reservation_of(p));
                            let mark = redis.seats[redis.scenario.seat_of(r)];
                            payment.state != PaymentPhase::Confirmed
                                || redis.ops[p][payment.last()] == DebitRecord::Debited
                                    && redis.reservations[r].status == ReservationState::Confirmed
                                    && mark.is_some_and(|mark| mark.sold && mark.reservation == r)
                        })
                    };
                    let sold_is_paid = redis.seats.iter().flatten().all(|mark| {
                        let of_owner = PAYMENTS
                            .into_iter()
                            .filter(|p| state::reservation_of(*p) == mark.reservation);
                        let paying = of_owner.filter(|p| {
                            matches!(
                                redis.payments[*p].state,
                                PaymentPhase::Confirmed | PaymentPhase::Refunding
                            )
                        });
                        !mark.sold || paying.count() == 1
                    });
                    let rest = model.final_state(redis);
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
                    paid_for(redis) && sold_is_paid && debited_is_confirmed
                },
            ),
            Property::always("each payment has exactly one end", |model, redis: &ModelState| {
                let ended = |pay| {
                    matches!(
                        pay,
                        PaymentPhase::None
                            | PaymentPhase::Confirmed
                            | PaymentPhase::Voided
                            | PaymentPhase::Refunded
                    )
                };
                model.final_state(redis).payments.iter().all(|p| ended(p.state))
                    && redis.ends.iter().flatten().all(|count| *count <= 1)
            }),
            Property::always(
                "an issue is used by one confirmed payment or by none",
                |model, redis: &ModelState| {
                    let confirmed = |redis: &RedisState| {
                        let all = PAYMENTS
                            .into_iter()
                            .filter(|p| redis.payments[*p].state == PaymentPhase::Confirmed);
                        all.collect::<Vec<_>>()
                    };
                    let rest = model.final_state(redis);
                    let user = rest.issue.map(|it| (it.payment, it.used));
                    model.scenario == ModelScenario::OneSeat
                        || confirmed(redis).len() <= 1
                            && user == confirmed(&rest).first().map(|payment| (*payment, true))
                },
            ),
        ]
    }

    /// States that must be reachable. Otherwise doing nothing would satisfy the invariants.
    fn reachable_states(&self) -> Vec<Property<Self>> {
        if self.scenario == ModelScenario::OneCoupon {
            return vec![
                Property::sometimes(
                    "a coupon that was given back pays for another seat",
                    |_, redis: &ModelState| {
                        redis.payments[0].state == PaymentPhase::Refunded
                            && redis.payments[2].state == PaymentPhase::Confirmed
                    },
                ),
                Property::sometimes("two payments ask for one coupon", |_, redis: &ModelState| {
                    redis.payments[0].state == PaymentPhase::Confirmed
                        && redis.payments[2].state == PaymentPhase::Voided
                }),
            ];
        }
        vec![
            Property::sometimes("a further attempt is confirmed", |_, redis: &ModelState| {
                redis.payments.iter().any(|p| p.state == PaymentPhase::Confirmed && p.attempt == 2)
            }),
            Property::sometimes(
                "a hold expires during its payment, and is sold",
                |_, redis: &ModelState| {
                    redis
                        .reservations
                        .iter()
                        .any(|r| r.status == ReservationState::Confirmed && r.expired)
                },
            ),
            Property::sometimes(
                "an expired seat is sold to the other user",
                |_, redis: &ModelState| {
                    redis.reservations[0].status == ReservationState::Ended
                        && redis.reservations[1].status == ReservationState::Confirmed
                },
            ),
            Property::sometimes("a cancelled seat is sold again", |_, redis: &ModelState| {
                redis.reservations[0].status == ReservationState::Cancelled
                    && redis.reservations[1].status == ReservationState::Confirmed
            }),
        ]
    }
}

#[test]
fn every_invariant_holds_in_every_state() {
    for scenario in [ModelScenario::OneSeat, ModelScenario::OneCoupon] {
        let checker =
            PaymentModel { scenario, removed: None }.checker().threads(2).spawn_bfs().join();
        let (all, different) = (checker.state_count(), checker.unique_state_count());
        eprintln!("{scenario:?}: {all} states, {different} of them different");
        checker.assert_properties();
    }
}

/// Removes a guard and returns the invariants that break.
fn invariants_broken_without(guard: ScriptGuard) -> Vec<&'static str> {
    let model = PaymentModel { scenario: guard.scenario(), removed: Some(guard) };
    let checker =
        model.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let invariants: Vec<_> = PaymentModel::invariants().iter().map(|it| it.name).collect();
    let mut broken = Vec::new();
    for (name, path) in checker.discoveries() {
        if invariants.contains(&name) {
            let steps: Vec<_> = path.into_actions().into_iter().map(|action| action.step).collect();
            eprintln!("without {guard:?}, `{name}` breaks: {steps:?}");
            broken.push(name);
        }
    }
    broken
}

#[test]
fn removing_any_guard_breaks_an_invariant() {
    for guard in ScriptGuard::ALL {
        assert!(!invariants_broken_without(guard).is_empty(), "nothing breaks without {guard:?}");
    }
}
