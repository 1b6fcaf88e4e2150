//! The things that bad requests are aimed at, and a picture of everything that must not change.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::json;
use sqlx::AssertSqlSafe;
use usher::queue::{Claims, TokenSigner};

use super::cases::{Case, Row};
use crate::support::api::Guest;
use crate::support::world::fast_queue;
use crate::support::{Api, NIGHT, SHOW, World, new_key};

/// A show with people in every position.
pub(super) struct Stage {
    world: World,
    pub(super) api: Api,
    /// Active, holds seat 1 (`alices`), has 5,000.
    pub(super) alice: Guest,
    pub(super) alices: String,
    /// Active, holds seat 2 (`bobs`).
    pub(super) bob: Guest,
    pub(super) bobs: String,
    /// Bought seat 3 (`carols`, paid by `carols_payment`); the token is used up.
    pub(super) carol: Guest,
    pub(super) carols: String,
    pub(super) carols_payment: String,
    /// Waits in the queue `slow`.
    pub(super) wendy: Guest,
    /// Alice's place in the queue `other`, and a hold there.
    pub(super) alice_elsewhere: Guest,
    pub(super) alices_elsewhere: String,
}

impl Stage {
    pub(super) async fn set() -> Self {
        let world = World::start(1).await;
        world.show(50, 1_000).await;
        world.queue("other", fast_queue()).await;
        world.queue("slow", json!({"max_active": 1})).await;
        world.queue("shut", json!({"mode": "closed"})).await;
        for name in ["other", "slow"] {
            let sections = json!([{"name": "A", "from": 1, "to": 50, "price": 1_000}]);
            let night = json!({"id": format!("{name}-night"), "starts_at": "2100-01-01T19:00:00Z", "sections": sections});
            world.concert(name, json!({"title": name, "schedules": [night]})).await;
        }
        let api = world.api.clone();
        let alice = api.active_guest(SHOW).await;
        let alices = api.held(&alice.token, NIGHT, &[1]).await;
        let bob = api.active_guest(SHOW).await;
        let bobs = api.held(&bob.token, NIGHT, &[2]).await;
        let carol = api.active_guest(SHOW).await;
        let carols = api.held(&carol.token, NIGHT, &[3]).await;
        for (user, amount) in [(&alice.user, 5_000), (&carol.user, 1_000)] {
            api.charge(user, amount).await;
        }
        let paid = api.pay(&carol.token, &carols, &new_key()).await.expect(201);
        let ticket = api.join("other", &alice.user).await.expect(201);
        let alice_elsewhere =
            Guest { user: alice.user.clone(), token: ticket["token"].as_str().unwrap().to_owned() };
        let alices_elsewhere = api.held(&alice_elsewhere.token, "other-night", &[1]).await;
        api.active_guest("slow").await;
        let wendy = api.guest("slow").await;
        Self {
            carols_payment: paid["id"].as_str().unwrap().to_owned(),
            world,
            api,
            alice,
            alices,
            bob,
            bobs,
            carol,
            carols,
            wendy,
            alice_elsewhere,
            alices_elsewhere,
        }
    }

    /// Everything in Redis and a count of every table, once nothing is under way. Of idempotency keys only what they answer counts, and
    /// a refusal has no answer.
    pub(super) async fn state(&self) -> BTreeMap<String, String> {
        let stores = &self.world.stores;
        stores.at_rest().await;
        let mut state = stores.redis().await.everything(&stores.prefix).await;
        state.retain(|key, _| !key.ends_with(":idempotency") && !key.ends_with(":idempotency_due"));
        let tables: Vec<String> = sqlx::query_scalar(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE()",
        )
        .fetch_all(&stores.mysql)
        .await
        .unwrap();
        // Refused calls of operators leave a line, too.
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

    /// A token like Alice's, signed by a key of another installation.
    pub(super) fn foreign_token(&self) -> String {
        let secret = "7215ee9c7d9dc229d2921a40e899ec5f".to_owned().into();
        TokenSigner::new(&[("k1".to_owned(), secret)]).sign(&Claims {
            queue: SHOW.parse().unwrap(),
            user: self.alice.user.parse().unwrap(),
            score: 1 << 40,
        })
    }

    pub(super) fn bob_mac(&self) -> &str {
        self.bob.token.rsplit_once('.').unwrap().1
    }

    /// A method that no route has.
    pub(super) fn wrong_method(&self, row: &Row) -> Case {
        let path: String = row
            .template
            .split('/')
            .map(|part| if part.starts_with('{') { "x" } else { part })
            .collect::<Vec<_>>()
            .join("/");
        let call = if path.starts_with("/admin") {
            self.api.admin_call(Method::PATCH, &path)
        } else {
            self.api.call(Method::PATCH, &path)
        };
        Case::new("PATCH", call, 405, "method_not_allowed").with_header("allow")
    }
}
