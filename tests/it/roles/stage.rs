//! Callers, and what they call for.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use reqwest::Method;
use serde_json::{Value, json};

use crate::coupons::payments::coupon;
use crate::support::api::{Call, Guest};
use crate::support::servers::ADMIN_KEY;
use crate::support::{Api, NIGHT, SHOW, Stores, World, new_key};

const SERVICE_KEY: &str = "5ervice-c2b7a9d84e5f6a1b3c8d7e9f0a";
const JWT_SECRET: &str = "7c9e66790d1d4b1f7c0a5be1d94b1f0a";

/// Who asks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Nobody.
    Anonymous,
    /// The user whose things are asked for.
    User,
    /// Somebody else, with an identity and a queue token of their own.
    Other,
    /// Somebody else, with the user's queue token.
    Thief,
    /// A backend with a service key, in the user's name.
    Service,
    /// Whoever has the admin key, in the user's name.
    Admin,
}

pub(super) const ROLES: [Role; 6] =
    [Role::Anonymous, Role::User, Role::Other, Role::Thief, Role::Service, Role::Admin];

impl Role {
    /// Whether what happens may happen to the user.
    pub(super) fn speaks_for_the_user(self) -> bool {
        matches!(self, Self::User | Self::Service)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "anonymous",
            Self::User => "user",
            Self::Other => "other user",
            Self::Thief => "other user with the user's token",
            Self::Service => "service",
            Self::Admin => "admin",
        })
    }
}

/// What the user has before the request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    /// A place inside and a held seat.
    Held,
    /// A bought seat; the token is used up.
    Bought,
}

/// Two users, and what the first of them has.
pub(super) struct Case {
    pub(super) user: Guest,
    pub(super) other: Guest,
    /// The user's reservation, held or confirmed.
    pub(super) reservation: String,
    /// A hold of the other.
    pub(super) others: String,
    /// The user's payment, if it is bought.
    pub(super) payment: String,
    /// The user's coupon.
    pub(super) issue: String,
    /// What nothing else is called.
    pub(super) name: String,
}

impl Case {
    /// What nobody else may be told.
    pub(super) fn secrets(&self) -> impl Iterator<Item = &str> {
        let all =
            [&self.user.user, &self.user.token, &self.reservation, &self.payment, &self.issue];
        all.into_iter().map(String::as_str).filter(|secret| !secret.is_empty())
    }
}

/// A show on two instances: one that believes everybody, by which the tests set up, and one that does not, which is asked.
pub(super) struct Stage {
    _world: World,
    helper: Api,
    strict: Api,
    seats: AtomicU32,
}

impl Stage {
    pub(super) async fn set() -> Self {
        let stores = Stores::new().await;
        let mut strict = stores.args();
        strict.secrets.auth = Some("service-key,jwt".into());
        strict.secrets.service_keys = Some(SERVICE_KEY.into());
        strict.secrets.jwt_key = Some(JWT_SECRET.into());
        let args = [stores.args(), strict];
        let world = World::with_args(stores, &args).await;
        world.show(5_000, 1_000).await;
        for name in ["off", "fresh"] {
            world.api.put(&format!("/admin/coupons/{name}"), &coupon(100, 100)).await.expect(200);
            world.everywhere(&format!("/v1/coupons/{name}"), |_| true).await;
        }
        world.api.put("/admin/rewards/hello", &reward()).await.expect(200);
        world.everywhere("/v1/rewards/hello", |_| true).await;
        let (helper, strict) = (world.api.only(0), world.api.only(1));
        Self { _world: world, helper, strict, seats: AtomicU32::new(1) }
    }

    /// Two new users and what they have.
    pub(super) async fn case(&self, needs: Needs) -> Case {
        let api = &self.helper;
        let (user, other) = tokio::join!(self.guest(), self.guest());
        let issued = api.post("/v1/coupons/off/issues").user(&user.user).send().await.expect(201);
        let (reservation, others) = tokio::join!(self.held(&user), self.held(&other));
        let mut payment = String::new();
        if needs == Needs::Bought {
            payment = id(&api.pay(&user.token, &reservation, &new_key()).await.expect(201));
        }
        Case {
            user,
            other,
            reservation,
            others,
            payment,
            issue: id(&issued),
            name: format!("n{}", new_key()),
        }
    }

    async fn guest(&self) -> Guest {
        let guest = self.helper.active_guest(SHOW).await;
        self.helper.charge(&guest.user, 10_000).await;
        guest
    }

    async fn held(&self, guest: &Guest) -> String {
        let seat = self.seats.fetch_add(1, Ordering::Relaxed);
        self.helper.held(&guest.token, NIGHT, &[seat]).await
    }

    /// A seat that is free.
    pub(super) fn free_seat(&self) -> u32 {
        self.seats.fetch_add(1, Ordering::Relaxed)
    }

    /// What the user has, as they see it.
    pub(super) async fn picture(&self, case: &Case) -> Value {
        let api = &self.helper;
        let mut seen = vec![api.poll(SHOW, &case.user.token).await.body["status"].clone()];
        for path in [
            format!("/v1/reservations/{}", case.reservation),
            "/v1/reservations/mine".to_owned(),
            "/v1/wallet/entries".to_owned(),
            "/v1/coupons/issues/mine".to_owned(),
            "/v1/rewards/hello/claims/mine".to_owned(),
        ] {
            seen.push(api.get(&path).user(&case.user.user).send().await.expect(200));
        }
        if !case.payment.is_empty() {
            let path = format!("/v1/payments/{}", case.payment);
            seen.push(api.get(&path).user(&case.user.user).send().await.expect(200));
        }
        json!(seen)
    }

    /// A request to the public listener with what the role has to show. `token` tells whether a queue token is among it.
    pub(super) fn public(
        &self,
        case: &Case,
        role: Role,
        token: bool,
        method: &Method,
        path: &str,
    ) -> Call {
        let call = identified(self.strict.call(method.clone(), path), case, role);
        match role {
            _ if !token => call,
            Role::Anonymous => call,
            Role::Other => call.token(&case.other.token),
            _ => call.token(&case.user.token),
        }
    }

    /// A request to the admin listener.
    pub(super) fn admin(&self, case: &Case, role: Role, method: &Method, path: &str) -> Call {
        identified(self.strict.keyless_admin_call(method.clone(), path), case, role)
    }
}

fn identified(call: Call, case: &Case, role: Role) -> Call {
    let bearer = |call: Call, key: &str| call.header("authorization", &format!("Bearer {key}"));
    match role {
        Role::Anonymous => call,
        Role::User => bearer(call, &jwt(&case.user.user)),
        Role::Other | Role::Thief => bearer(call, &jwt(&case.other.user)),
        Role::Service => bearer(call, SERVICE_KEY).user(&case.user.user),
        Role::Admin => bearer(call, ADMIN_KEY).user(&case.user.user),
    }
}

fn jwt(user: &str) -> String {
    let claims = json!({"sub": user, "exp": jsonwebtoken::get_current_timestamp() + 600});
    let part = |value: Value| BASE64.encode(value.to_string());
    let message = format!("{}.{}", part(json!({"alg": "HS256"})), part(claims));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, JWT_SECRET.as_bytes());
    format!("{message}.{}", BASE64.encode(ring::hmac::sign(&key, message.as_bytes())))
}

pub(super) fn reward() -> Value {
    json!({"title": "Hello", "starts_at": "2020-01-01T00:00:00Z", "ends_at": "2100-01-01T00:00:00Z", "active": true, "conditions": [],
        "reward": {"kind": "points", "amount": 5}})
}

fn id(body: &Value) -> String {
    body["id"].as_str().unwrap().to_owned()
}
