//! One of the crowd: comes, waits, looks, holds, pays or gives up, goes home, and comes again.

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;
use uuid::Uuid;

use super::client::{ClientResponse, SimulatedClient};
use super::tally::{PresenceGuard, add};
use super::{BUYERS, LEFT_FREE, SimulatedUsers, SimulationSettings};

/// The accounts of the crowd: this, and the number of the member.
const FIRST_ACCOUNT: u128 = 0x7573_6865_7200_4000_8000_0000_0000_0000;
/// What a member puts into the wallet when it is short.
const CHARGE: u64 = 50_000;

/// Seconds at the usual pace: between visits; before giving up in line; looking at the map; with seats held; with seats bought.
const HOME: Range<f64> = 4.0..16.0;
const PATIENCE: Range<f64> = 1.0..6.0;
const LOOKING: Range<f64> = 0.8..3.0;
const HOLDING: Range<f64> = 2.0..7.0;
const OWNING: Range<f64> = 6.0..20.0;

/// Of a hundred visits these end by giving up in line, …
const GIVES_UP: u32 = 6;
/// … or by a tab closed without a word.
const VANISHES: u32 = 1;
/// Of a hundred who are inside so many want seats, of those who pay and of the others; the rest only look.
const WANTS: [u32; 2] = [90, 10];
/// Of a hundred buyers with a hold so many give it back all the same.
const CHANGES_MIND: u32 = 25;

/// One of them.
pub(super) struct SimulatedUser {
    number: u32,
    user: String,
    crowd: SimulatedUsers,
    client: SimulatedClient,
    wish: watch::Receiver<(SimulationSettings, Option<Instant>)>,
}

/// Seats that it holds or owns.
struct HeldSeats {
    reservation: String,
    /// Given back to the crowd when they are.
    _permits: OwnedSemaphorePermit,
}

fn chance(of_hundred: u32) -> bool {
    rand::random_range(0..100) < of_hundred
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

impl SimulatedUser {
    pub(super) fn new(number: u32, crowd: SimulatedUsers, client: SimulatedClient) -> Self {
        let user = Uuid::from_u128(FIRST_ACCOUNT | u128::from(number)).to_string();
        let wish = crowd.0.wish.subscribe();
        Self { number, user, crowd, client, wish }
    }

    /// Visit after visit, and asleep while it is not wanted.
    pub(super) async fn live(mut self) {
        if self.number < BUYERS {
            self.give_everything_back().await;
        }
        // Not everybody comes at the same moment.
        self.sleep(0.0..HOME.end).await;
        loop {
            let number = self.number;
            if self.wish.wait_for(|(wish, _)| number < wish.people).await.is_err() {
                return;
            }
            if self.crowd.0.short.load(Ordering::Relaxed) {
                self.visit().await;
            }
            self.sleep(HOME).await;
        }
    }

    fn wanted(&self) -> bool {
        self.number < self.wish.borrow().0.people
    }

    /// A while at the crowd's pace; shorter when it is sent home.
    async fn sleep(&mut self, seconds: Range<f64>) {
        let pace = f64::from(self.wish.borrow().0.pace_percent) / 100.0;
        let while_ = Duration::from_secs_f64(rand::random_range(seconds) / pace);
        let number = self.number;
        let home = self.wish.wait_for(|(wish, _)| number >= wish.people);
        drop(tokio::time::timeout(while_, home).await);
    }

    /// An answer that was expected, or a mark that it was not. What the state of the sale explains is no failure.
    fn taken(&self, answer: ClientResponse) -> Option<ClientResponse> {
        if answer.is_success() {
            return Some(answer);
        }
        if answer.status == 0 || answer.status >= 500 {
            add(&self.crowd.0.tally.failed);
        }
        None
    }

    async fn visit(&mut self) {
        let crowd = self.crowd.clone();
        add(&crowd.0.tally.visits);
        let answer = self.client.post("/v1/queues/demo/tokens").user(&self.user).send().await;
        let Some(ticket) = self.taken(answer) else { return };
        if chance(VANISHES) {
            add(&crowd.0.tally.gave_up);
            return;
        }
        let Some(token) = self.wait(ticket.body).await else { return };
        let inside = PresenceGuard::new(&crowd.0.tally.inside);
        let bought = self.choose(&token).await;
        drop(inside);
        if let Some(bought) = bought {
            let _owner = PresenceGuard::new(&crowd.0.tally.owners);
            self.sleep(OWNING).await;
            self.cancel(&bought.reservation).await;
        }
    }

    /// Stands in line, polling when told to; the token once it is admitted.
    async fn wait(&mut self, mut ticket: Value) -> Option<String> {
        let crowd = self.crowd.clone();
        let _waiting = PresenceGuard::new(&crowd.0.tally.in_line);
        let token = text(&ticket["token"]);
        if chance(GIVES_UP) {
            self.sleep(PATIENCE).await;
            self.leave(&token).await;
            return None;
        }
        while ticket["status"] == "waiting" {
            let until = Duration::from_millis(ticket["poll_after_ms"].as_u64().unwrap_or(1_000));
            let number = self.number;
            drop(
                tokio::time::timeout(until, self.wish.wait_for(|(wish, _)| number >= wish.people))
                    .await,
            );
            if !self.wanted() {
                self.leave(&token).await;
                return None;
            }
            let answer = self.client.get("/v1/queues/demo/tokens/me").token(&token).send().await;
            ticket = self.taken(answer)?.body;
        }
        (ticket["status"] == "active").then_some(token)
    }

    async fn leave(&self, token: &str) {
        add(&self.crowd.0.tally.gave_up);
        let answer = self.client.delete("/v1/queues/demo/tokens/me").token(token).send().await;
        self.taken(answer);
    }

    /// Inside: looks at the map, perhaps holds seats, perhaps pays for them. Gives what it has bought.
    async fn choose(&mut self, token: &str) -> Option<HeldSeats> {
        self.sleep(LOOKING).await;
        let held = if self.wanted() && chance(WANTS[usize::from(self.number >= BUYERS)]) {
            self.hold(token).await
        } else {
            None
        };
        let Some(held) = held else {
            self.leave(token).await;
            return None;
        };
        self.sleep(HOLDING).await;
        let pays = self.wanted() && self.number < BUYERS && !chance(CHANGES_MIND);
        if pays && self.pay(token, &held).await {
            return Some(held);
        }
        let path = format!("/v1/reservations/{}", held.reservation);
        if self.taken(self.client.delete(path).token(token).send().await).is_some() {
            add(&self.crowd.0.tally.given_back);
        }
        self.leave(token).await;
        None
    }

    /// One or two seats that are free, unless too few are, or the crowd has enough.
    async fn hold(&self, token: &str) -> Option<HeldSeats> {
        let map = self
            .client
            .get("/v1/schedules/demo-1/seats?status=available")
            .token(token)
            .send()
            .await;
        let map = self.taken(map)?;
        let free: Vec<u64> = map.body["items"]
            .as_array()?
            .iter()
            .filter_map(|seat| seat["number"].as_u64())
            .collect();
        let wish = rand::random_range(1..=2_usize);
        if free.len() < LEFT_FREE + wish {
            return None;
        }
        let permits =
            self.crowd.0.seats.clone().try_acquire_many_owned(u32::try_from(wish).ok()?).ok()?;
        let at = rand::random_range(0..=free.len() - wish);
        let body = json!({"schedule_id": "demo-1", "seats": &free[at..at + wish]});
        let answer =
            self.taken(self.client.post("/v1/reservations").token(token).json(body).send().await)?;
        add(&self.crowd.0.tally.held);
        Some(HeldSeats { reservation: text(&answer.body["id"]), _permits: permits })
    }

    /// Pays, with a coupon where it has one; fills the wallet and tries again under the same key if it is short.
    async fn pay(&self, token: &str, held: &HeldSeats) -> bool {
        let key = Uuid::new_v4().to_string();
        let mut body = json!({"reservation_id": &held.reservation});
        if let Some(issue) = self.coupon().await {
            body["coupon_issue_id"] = issue.into();
        }
        let pay = self.client.post("/v1/payments").token(token).key(&key).json(body);
        let mut answer = pay.send().await;
        if answer.code() == "insufficient_balance" {
            let charge = self.client.post("/v1/wallet/charges").user(&self.user);
            let charged = charge
                .key(&Uuid::new_v4().to_string())
                .json(json!({"amount": CHARGE}))
                .send()
                .await;
            self.taken(charged);
            answer = pay.send().await;
        }
        let paid = self.taken(answer).is_some_and(|answer| answer.body["status"] == "confirmed");
        if paid {
            add(&self.crowd.0.tally.paid);
        }
        paid
    }

    /// Every second buyer asks for the demo's coupon, and uses it when it is unused.
    async fn coupon(&self) -> Option<String> {
        if self.number % 2 == 1 {
            return None;
        }
        let answer =
            self.client.post("/v1/coupons/demo-coupon/issues").user(&self.user).send().await;
        let issue = self.taken(answer)?.body;
        issue["used_at"].is_null().then(|| text(&issue["id"]))
    }

    async fn cancel(&self, reservation: &str) {
        let path = format!("/v1/reservations/{reservation}/cancel");
        let call =
            self.client.post(path).user(&self.user).key(&Uuid::new_v4().to_string()).send().await;
        if self.taken(call).is_some() {
            add(&self.crowd.0.tally.cancelled);
        }
    }

    /// What a crowd before this one was killed with: the newest of a member's reservations, if any, is still open.
    async fn give_everything_back(&self) {
        let answer = self.client.get("/v1/reservations/mine?limit=5").user(&self.user).send().await;
        let Some(answer) = self.taken(answer) else { return };
        for reservation in answer.body["items"].as_array().into_iter().flatten() {
            let id = text(&reservation["id"]);
            match reservation["status"].as_str() {
                Some("confirmed") => self.cancel(&id).await,
                Some("held") => {
                    let release =
                        self.client.delete(format!("/v1/reservations/{id}")).user(&self.user);
                    self.taken(release.send().await);
                }
                _ => {}
            }
        }
    }
}
