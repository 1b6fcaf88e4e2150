//! The objects that bad requests name, and a dump of all state that must not change.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use usher::queue::{Claims, TokenSigner};

use super::cases::{BadInputCase, BadInputRow};
use crate::coupons::payments::coupon;
use crate::support::api::{ApiRequest, TestUser};
use crate::support::world::fast_queue_settings;
use crate::support::{ApiClient, CONCERT, SCHEDULE, TestStores, TestWorld, new_key};

const SERVICE_KEY: &str = "5ervice-c2b7a9d84e5f6a1b3c8d7e9f0a";

pub(super) fn reward() -> Value {
    json!({"title": "Gift", "starts_at": "2020-01-01T00:00:00Z",
        "ends_at": "2100-01-01T00:00:00Z", "reward": {"kind": "points", "amount": 5}})
}

/// A concert with users in every state.
pub(super) struct BadInputFixture {
    world: TestWorld,
    pub(super) api: ApiClient,
    /// An instance with a service key.
    pub(super) backend: ApiClient,
    /// Active, holds seat 1 (`alices`), has 5,000.
    pub(super) alice: TestUser,
    pub(super) alices: String,
    /// Active, holds seat 2 (`bobs`).
    pub(super) bob: TestUser,
    pub(super) bobs: String,
    /// Bought seat 3 (`carols`, paid by `carols_payment`). The token is used up.
    pub(super) carol: TestUser,
    pub(super) carols: String,
    pub(super) carols_payment: String,
    /// Active, holds seat 4, which the payment `daves_payment` waits to pay at a provider.
    pub(super) dave: TestUser,
    pub(super) daves_payment: String,
    /// Waits in the queue `slow`.
    pub(super) wendy: TestUser,
    /// Alice's place in the queue `other`, and a hold there.
    pub(super) alice_elsewhere: TestUser,
    pub(super) alices_elsewhere: String,
    /// A cursor of the events.
    pub(super) event_cursor: String,
}

impl BadInputFixture {
    pub(super) async fn set() -> Self {
        let stores = TestStores::new().await;
        let mut strict = stores.args();
        strict.secrets.auth = Some("service-key".into());
        strict.secrets.service_keys = Some(SERVICE_KEY.into());
        let args = [stores.args(), strict];
        let world = TestWorld::with_args(stores, &args).await;
        world.put_show(50, 1_000).await;
        world.put_queue("other", fast_queue_settings()).await;
        world.put_queue("slow", json!({"max_active": 1})).await;
        world.put_queue("shut", json!({"mode": "closed"})).await;
        for name in ["other", "slow"] {
            let sections = json!([{"name": "A", "from": 1, "to": 50, "price": 1_000}]);
            let night = json!({"id": format!("{name}-night"), "starts_at": "2100-01-01T19:00:00Z",
                "sections": sections});
            world.put_concert(name, json!({"title": name, "schedules": [night]})).await;
        }
        let (api, backend) = (world.api.for_instance(0), world.api.for_instance(1));
        api.put("/admin/coupons/gift", &coupon(100, 100)).await.expect(200);
        api.put("/admin/rewards/gift", &reward()).await.expect(200);
        let books = json!({"url": "https://8.8.8.8/", "types": ["wallet.used"], "active": false});
        let books = api.put("/admin/webhooks/books", &books).await.expect(200);
        let event_cursor = books["cursor"].as_str().unwrap().to_owned();
        let alice = api.active_user(CONCERT).await;
        let alices = api.hold_seats(&alice.token, SCHEDULE, &[1]).await;
        let bob = api.active_user(CONCERT).await;
        let bobs = api.hold_seats(&bob.token, SCHEDULE, &[2]).await;
        let carol = api.active_user(CONCERT).await;
        let carols = api.hold_seats(&carol.token, SCHEDULE, &[3]).await;
        for (user, amount) in [(&alice.user, 5_000), (&carol.user, 1_000)] {
            api.charge(user, amount).await;
        }
        let paid = api.pay(&carol.token, &carols, &new_key()).await.expect(201);
        let dave = api.active_user(CONCERT).await;
        let daves = api.hold_seats(&dave.token, SCHEDULE, &[4]).await;
        let body = json!({"reservation_id": daves, "method": "external"});
        let call = api.post("/v1/payments").token(&dave.token).key(&new_key());
        let waiting = call.json(&body).send().await.expect(201);
        let ticket = api.join("other", &alice.user).await.expect(201);
        let alice_elsewhere = TestUser {
            user: alice.user.clone(),
            token: ticket["token"].as_str().unwrap().to_owned(),
        };
        let alices_elsewhere = api.hold_seats(&alice_elsewhere.token, "other-night", &[1]).await;
        api.active_user("slow").await;
        let wendy = api.join_new_user("slow").await;
        Self {
            carols_payment: paid["id"].as_str().unwrap().to_owned(),
            daves_payment: waiting["id"].as_str().unwrap().to_owned(),
            world,
            api,
            backend,
            dave,
            alice,
            alices,
            bob,
            bobs,
            carol,
            carols,
            wendy,
            alice_elsewhere,
            alices_elsewhere,
            event_cursor,
        }
    }

    /// All keys of Redis and the row counts of all tables, once everything is idle. Of idempotency
    /// keys only the stored responses, and a refusal stores none.
    pub(super) async fn state(&self) -> BTreeMap<String, String> {
        let stores = &self.world.stores;
        stores.wait_until_idle().await;
        let mut state = stores.redis().await.dump_keys(&stores.prefix).await;
        // The promoter removes idle queues from `busy`.
        let changes = [":idempotency", ":idempotency_due", ":busy"];
        state.retain(|key, _| !changes.iter().any(|name| key.ends_with(name)));
        let tables: Vec<String> = sqlx::query_scalar(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE()",
        )
        .fetch_all(&stores.mysql)
        .await
        .unwrap();
        // Refused admin calls are logged, too.
        for table in tables.iter().filter(|table| *table != "admin_actions") {
            let count = AssertSqlSafe(format!("SELECT COUNT(*) FROM `{table}`"));
            let rows: i64 = sqlx::query_scalar(count).fetch_one(&stores.mysql).await.unwrap();
            state.insert(format!("rows of {table}"), rows.to_string());
        }
        let version = stores.count("SELECT CAST(version AS SIGNED) FROM definitions").await;
        state.insert("version of the definitions".into(), version.to_string());
        for (name, user) in
            [("alice", &self.alice.user), ("bob", &self.bob.user), ("carol", &self.carol.user)]
        {
            state.insert(format!("balance of {name}"), self.api.balance(user).await.to_string());
        }
        state
    }

    /// A token like Alice's, signed with the key of another installation.
    pub(super) fn foreign_token(&self) -> String {
        let secret = "7215ee9c7d9dc229d2921a40e899ec5f".to_owned().into();
        TokenSigner::new(&[("k1".to_owned(), secret)]).sign(&Claims {
            queue: CONCERT.parse().unwrap(),
            user: self.alice.user.parse().unwrap(),
            user_text: None,
            is_guest: false,
            score: 1 << 40,
        })
    }

    /// A POST with the service key.
    pub(super) fn service(&self, path: &str) -> ApiRequest {
        let key = format!("Bearer {SERVICE_KEY}");
        self.backend.post(path).header("authorization", &key)
    }

    pub(super) fn bob_mac(&self) -> &str {
        self.bob.token.rsplit_once('.').unwrap().1
    }

    /// A method that no route accepts.
    pub(super) fn wrong_method(&self, row: &BadInputRow) -> BadInputCase {
        let path: String = row
            .template
            .split('/')
            .map(|part| if part.starts_with('{') { "x" } else { part })
            .collect::<Vec<_>>()
            .join("/");
        let method = Method::from_bytes(b"PURGE").unwrap();
        let call = if path.starts_with("/admin") {
            self.api.admin_call(method, &path)
        } else {
            self.api.call(method, &path)
        };
        BadInputCase::new("PURGE", call, 405, "method_not_allowed").with_header("allow")
    }
}
