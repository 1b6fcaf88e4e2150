//! One simulated user: visits, waits, looks at seats, holds, pays or gives up, leaves, and returns.

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, watch};
use uuid::Uuid;

use super::client::{ClientResponse, SimulatedClient};
use super::counters::{PresenceGuard, increment};
use super::state::{BUYER_COUNT, CurrentRun, MIN_FREE_SEATS, SimulatedUsers};

/// The account of a simulated user: this value plus the user's number.
const FIRST_ACCOUNT: u128 = 0x7573_6865_7200_4000_8000_0000_0000_0000;
/// The amount of one wallet charge when the balance is too low.
const CHARGE_AMOUNT: u64 = 50_000;

// Durations in seconds at the default pace.
const BETWEEN_VISITS: Range<f64> = 4.0..16.0;
const BEFORE_GIVING_UP: Range<f64> = 1.0..6.0;
const CHOOSING_SEATS: Range<f64> = 0.8..3.0;
const BEFORE_PAYING: Range<f64> = 2.0..7.0;
const BEFORE_CANCELLING: Range<f64> = 6.0..20.0;

/// Percent of visits that end with leaving the queue while waiting.
const GIVE_UP_PERCENT: u32 = 6;
/// Percent of visits that end without a request, as when a tab is closed.
const VANISH_PERCENT: u32 = 1;
/// Percent of admitted buyers, and of other admitted users, that want seats. The rest only look.
const WANT_SEATS_PERCENT: [u32; 2] = [90, 10];
/// Percent of buyers with a hold that release it instead of paying.
const RELEASE_PERCENT: u32 = 25;

pub(super) struct SimulatedUser {
    number: u32,
    account: String,
    group: SimulatedUsers,
    client: SimulatedClient,
    run: watch::Receiver<CurrentRun>,
}

/// Seats that the user holds or owns.
struct HeldSeats {
    reservation: String,
    /// Returned to the group with the seats.
    _permits: OwnedSemaphorePermit,
}

fn chance(percent: u32) -> bool {
    rand::random_range(0..100) < percent
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

impl SimulatedUser {
    pub(super) fn new(number: u32, group: SimulatedUsers, client: SimulatedClient) -> Self {
        let account = Uuid::from_u128(FIRST_ACCOUNT | u128::from(number)).to_string();
        let run = group.0.run.subscribe();
        Self { number, account, group, client, run }
    }

    /// Makes one visit after another, and sleeps while the settings ask for fewer users.
    pub(super) async fn live(mut self) {
        if self.number < BUYER_COUNT {
            self.return_leftovers().await;
        }
        // Users do not start at the same moment.
        self.sleep(0.0..BETWEEN_VISITS.end).await;
        loop {
            let number = self.number;
            if self.run.wait_for(|(settings, _)| number < settings.people).await.is_err() {
                return;
            }
            if self.group.0.may_join.load(Ordering::Relaxed) {
                self.visit().await;
            }
            self.sleep(BETWEEN_VISITS).await;
        }
    }

    fn is_needed(&self) -> bool {
        self.number < self.run.borrow().0.people
    }

    /// Sleeps at the pace of the settings; wakes early when the user is no longer needed.
    async fn sleep(&mut self, seconds: Range<f64>) {
        let pace = f64::from(self.run.borrow().0.pace_percent) / 100.0;
        self.sleep_while_needed(Duration::from_secs_f64(rand::random_range(seconds) / pace)).await;
    }

    async fn sleep_while_needed(&mut self, duration: Duration) {
        let number = self.number;
        let not_needed = self.run.wait_for(|(settings, _)| number >= settings.people);
        drop(tokio::time::timeout(duration, not_needed).await);
    }

    /// The response if it is a success. Refusals that the state of the sale explains are no
    /// failures.
    fn success(&self, response: ClientResponse) -> Option<ClientResponse> {
        if response.is_success() {
            return Some(response);
        }
        if response.status == 0 || response.status >= 500 {
            increment(&self.group.0.counters.failed);
        }
        None
    }

    async fn visit(&mut self) {
        let group = self.group.clone();
        increment(&group.0.counters.visits);
        let response = self.client.post("/v1/queues/demo/tokens").user(&self.account).send().await;
        let Some(ticket) = self.success(response) else { return };
        if chance(VANISH_PERCENT) {
            increment(&group.0.counters.gave_up);
            return;
        }
        let Some(token) = self.wait(ticket.body).await else { return };
        let active = PresenceGuard::new(&group.0.counters.active);
        let bought = self.choose_seats(&token).await;
        drop(active);
        if let Some(bought) = bought {
            let _owner = PresenceGuard::new(&group.0.counters.owners);
            self.sleep(BEFORE_CANCELLING).await;
            self.cancel(&bought.reservation).await;
        }
    }

    /// Polls as often as the ticket says. Returns the token once the user is admitted.
    async fn wait(&mut self, mut ticket: Value) -> Option<String> {
        let group = self.group.clone();
        let _waiting = PresenceGuard::new(&group.0.counters.waiting);
        let token = text(&ticket["token"]);
        if chance(GIVE_UP_PERCENT) {
            self.sleep(BEFORE_GIVING_UP).await;
            self.leave(&token).await;
            return None;
        }
        while ticket["status"] == "waiting" {
            let millis = ticket["poll_after_ms"].as_u64().unwrap_or(1_000);
            self.sleep_while_needed(Duration::from_millis(millis)).await;
            if !self.is_needed() {
                self.leave(&token).await;
                return None;
            }
            let poll = self.client.get("/v1/queues/demo/tokens/me").token(&token).send().await;
            ticket = self.success(poll)?.body;
        }
        (ticket["status"] == "active").then_some(token)
    }

    async fn leave(&self, token: &str) {
        increment(&self.group.0.counters.gave_up);
        let response = self.client.delete("/v1/queues/demo/tokens/me").token(token).send().await;
        self.success(response);
    }

    /// Looks at the seats, holds some by chance, and pays for them by chance. Returns bought seats.
    async fn choose_seats(&mut self, token: &str) -> Option<HeldSeats> {
        self.sleep(CHOOSING_SEATS).await;
        let want_percent = WANT_SEATS_PERCENT[usize::from(self.number >= BUYER_COUNT)];
        let held =
            if self.is_needed() && chance(want_percent) { self.hold(token).await } else { None };
        let Some(held) = held else {
            self.leave(token).await;
            return None;
        };
        self.sleep(BEFORE_PAYING).await;
        let pays = self.is_needed() && self.number < BUYER_COUNT && !chance(RELEASE_PERCENT);
        if pays && self.pay(token, &held).await {
            return Some(held);
        }
        let path = format!("/v1/reservations/{}", held.reservation);
        if self.success(self.client.delete(path).token(token).send().await).is_some() {
            increment(&self.group.0.counters.released);
        }
        self.leave(token).await;
        None
    }

    /// Holds one or two free seats, unless too few are free or the group has its share.
    async fn hold(&self, token: &str) -> Option<HeldSeats> {
        let path = "/v1/schedules/demo-1/seats?status=available";
        let map = self.success(self.client.get(path).token(token).send().await)?;
        let items = map.body["items"].as_array()?;
        let free: Vec<u64> = items.iter().filter_map(|seat| seat["number"].as_u64()).collect();
        let quantity = rand::random_range(1..=2_usize);
        if free.len() < MIN_FREE_SEATS + quantity {
            return None;
        }
        let permits = self.group.0.seat_permits.clone();
        let permits = permits.try_acquire_many_owned(u32::try_from(quantity).ok()?).ok()?;
        let first = rand::random_range(0..=free.len() - quantity);
        let body = json!({"schedule_id": "demo-1", "seats": &free[first..first + quantity]});
        let hold = self.client.post("/v1/reservations").token(token).json(body).send().await;
        let hold = self.success(hold)?;
        increment(&self.group.0.counters.held);
        Some(HeldSeats { reservation: text(&hold.body["id"]), _permits: permits })
    }

    /// Pays, with a coupon if there is one. Charges the wallet and repeats the payment under the
    /// same idempotency key when the balance is too low.
    async fn pay(&self, token: &str, held: &HeldSeats) -> bool {
        let key = Uuid::new_v4().to_string();
        let mut body = json!({"reservation_id": &held.reservation});
        if let Some(issue) = self.coupon().await {
            body["coupon_issue_id"] = issue.into();
        }
        let payment = self.client.post("/v1/payments").token(token).key(&key).json(body);
        let mut response = payment.send().await;
        if response.code() == "insufficient_balance" {
            let charge = self.client.post("/v1/wallet/charges").user(&self.account);
            let charge = charge.key(&Uuid::new_v4().to_string());
            let charge = charge.json(json!({"amount": CHARGE_AMOUNT}));
            self.success(charge.send().await);
            response = payment.send().await;
        }
        let response = self.success(response);
        let paid = response.is_some_and(|response| response.body["status"] == "confirmed");
        if paid {
            increment(&self.group.0.counters.paid);
        }
        paid
    }

    /// Every second buyer requests the demo coupon. Returns it while it is not redeemed.
    async fn coupon(&self) -> Option<String> {
        if self.number % 2 == 1 {
            return None;
        }
        let path = "/v1/coupons/demo-coupon/issues";
        let response = self.client.post(path).user(&self.account).send().await;
        let issue = self.success(response)?.body;
        issue["used_at"].is_null().then(|| text(&issue["id"]))
    }

    async fn cancel(&self, reservation: &str) {
        let path = format!("/v1/reservations/{reservation}/cancel");
        let call = self.client.post(path).user(&self.account).key(&Uuid::new_v4().to_string());
        if self.success(call.send().await).is_some() {
            increment(&self.group.0.counters.cancelled);
        }
    }

    /// Gives back what an earlier process left when it was killed. Only the newest reservations of
    /// an account can still be open.
    async fn return_leftovers(&self) {
        let path = "/v1/reservations/mine?limit=5";
        let response = self.client.get(path).user(&self.account).send().await;
        let Some(response) = self.success(response) else { return };
        for reservation in response.body["items"].as_array().into_iter().flatten() {
            let id = text(&reservation["id"]);
            match reservation["status"].as_str() {
                Some("confirmed") => self.cancel(&id).await,
                Some("held") => {
                    let path = format!("/v1/reservations/{id}");
                    self.success(self.client.delete(path).user(&self.account).send().await);
                }
                _ => {}
            }
        }
    }
}
