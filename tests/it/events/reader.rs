//! A reader of `GET /admin/events`, as a booking backend would be one.

use std::collections::{BTreeMap, HashMap, HashSet};

use reqwest::Method;
use serde_json::Value;

use crate::support::{ApiClient, ApiResponse, TestStores};

pub(crate) async fn events(api: &ApiClient, query: &str) -> ApiResponse {
    api.admin_call(Method::GET, &format!("/admin/events{query}")).send().await
}

/// Reads all events, with a cursor that it keeps.
#[derive(Default)]
pub(crate) struct EventReader {
    cursor: Option<String>,
    /// All events that were read, also repeated ones.
    pub(crate) read: Vec<Value>,
}

impl EventReader {
    /// A reader that has got these events.
    pub(crate) fn of(read: Vec<Value>) -> Self {
        Self { cursor: None, read }
    }

    /// Reads a page. Returns whether it had events.
    pub(crate) async fn read_page(&mut self, api: &ApiClient, limit: usize) -> bool {
        let after = self.cursor.as_ref().map_or_else(String::new, |it| format!("&after={it}"));
        let page = events(api, &format!("?limit={limit}{after}")).await.expect(200);
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= limit);
        self.read.extend(items.iter().cloned());
        self.cursor = Some(page["next"].as_str().unwrap().to_owned());
        !items.is_empty()
    }

    pub(crate) async fn read_to_the_end(&mut self, api: &ApiClient, limit: usize) {
        while self.read_page(api, limit).await {}
    }

    /// The events that were read, each once.
    pub(crate) fn distinct(&self) -> Vec<&Value> {
        let mut seen = HashSet::new();
        self.read.iter().filter(|event| seen.insert(event["id"].as_str().unwrap())).collect()
    }

    pub(crate) fn types(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for event in self.distinct() {
            *counts.entry(event["type"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        counts
    }

    /// Reads until every fact of MySQL was read, and fails if that does not happen.
    pub(crate) async fn read_everything(&mut self, api: &ApiClient, stores: &TestStores) {
        stores.wait_until_idle().await;
        self.read_to_the_end(api, 100).await;
        let missing = self.missing(stores).await;
        assert!(missing.is_empty(), "not delivered: {missing:?}");
        self.assert_order();
    }

    /// The facts of MySQL without an event.
    pub(crate) async fn missing(&self, stores: &TestStores) -> Vec<String> {
        let read: HashSet<(&str, &str)> = self
            .read
            .iter()
            .filter_map(|event| Some((event["type"].as_str()?, event["data"]["id"].as_str()?)))
            .collect();
        let mut missing = Vec::new();
        for (kind, select) in [
            (
                "reservation.confirmed",
                "SELECT id FROM reservations WHERE status IN ('confirmed', 'cancelled')",
            ),
            ("reservation.cancelled", "SELECT id FROM reservations WHERE status = 'cancelled'"),
            (
                "payment.confirmed",
                "SELECT id FROM payments WHERE status IN ('confirmed', 'refunded')",
            ),
            ("payment.refunded", "SELECT id FROM payments WHERE status = 'refunded'"),
            ("wallet.charged", "SELECT id FROM wallet_entries WHERE kind = 'charge'"),
            ("wallet.used", "SELECT id FROM wallet_entries WHERE kind = 'use'"),
            ("coupon.issued", "SELECT id FROM coupon_issues"),
            ("reward.claimed", "SELECT id FROM reward_claims WHERE status = 'success'"),
        ] {
            let ids: Vec<uuid::Uuid> =
                sqlx::query_scalar(select).fetch_all(&stores.mysql).await.unwrap();
            for id in ids {
                if !read.contains(&(kind, id.to_string().as_str())) {
                    missing.push(format!("{kind} {id}"));
                }
            }
        }
        missing
    }

    /// A reservation is confirmed before it is cancelled, and the balances of a user's wallet
    /// appear in the order of time. Of a repeated event the first delivery counts.
    pub(crate) fn assert_order(&self) {
        let mut confirmed = HashSet::new();
        let mut latest: HashMap<&str, i64> = HashMap::new();
        for event in self.distinct() {
            let (kind, data) = (event["type"].as_str().unwrap(), &event["data"]);
            let at = event["timestamp"].as_str().unwrap();
            let at = chrono::DateTime::parse_from_rfc3339(at).unwrap().timestamp_millis();
            match kind {
                "reservation.confirmed" => drop(confirmed.insert(data["id"].clone())),
                "reservation.cancelled" => {
                    assert!(confirmed.contains(&data["id"]), "cancelled first: {event}");
                }
                "wallet.charged" | "wallet.used" => {
                    let before = latest.insert(data["user_id"].as_str().unwrap(), at);
                    assert!(before.is_none_or(|before| before <= at), "out of order: {event}");
                }
                _ => {}
            }
        }
    }
}
