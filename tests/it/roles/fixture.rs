//! The roles, and the objects that they request.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use reqwest::Method;
use serde_json::{Value, json};

use crate::coupons::payments::coupon;
use crate::support::api::{ApiRequest, TestUser};
use crate::support::servers::ADMIN_KEY;
use crate::support::{ApiClient, CONCERT, SCHEDULE, TestStores, TestWorld, new_key};

const SERVICE_KEY: &str = "5ervice-c2b7a9d84e5f6a1b3c8d7e9f0a";
const VIEWER_KEY: &str = "0bserver-b7a9d84e5f6a1b3c8d7e9f0a11";
const OPERATOR_KEY: &str = "0perat0r-b7a9d84e5f6a1b3c8d7e9f0a11";
const JWT_SECRET: &str = "7c9e66790d1d4b1f7c0a5be1d94b1f0a";

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum CallerRole {
    /// No credentials.
    Anonymous,
    /// The user who owns the objects.
    User,
    /// Another user, with their own identity and queue token.
    Other,
    /// Another user, with the first user's queue token.
    Thief,
    /// A backend with a service key, on behalf of the user.
    Service,
    /// The holder of the admin key, on behalf of the user.
    Admin,
    /// The holder of an admin key with the role `viewer`.
    Viewer,
    /// The holder of an admin key with the role `operator`.
    Operator,
}

pub(super) const ROLES: [CallerRole; 8] = [
    CallerRole::Anonymous,
    CallerRole::User,
    CallerRole::Other,
    CallerRole::Thief,
    CallerRole::Service,
    CallerRole::Admin,
    CallerRole::Viewer,
    CallerRole::Operator,
];

impl CallerRole {
    /// Whether the role has a key of the admin API.
    pub(super) fn has_admin_key(self) -> bool {
        matches!(self, Self::Admin | Self::Viewer | Self::Operator)
    }

    /// Whether the role may change the user's state.
    pub(super) fn speaks_for_the_user(self) -> bool {
        matches!(self, Self::User | Self::Service)
    }
}

impl fmt::Display for CallerRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "anonymous",
            Self::User => "user",
            Self::Other => "other user",
            Self::Thief => "other user with the user's token",
            Self::Service => "service",
            Self::Admin => "admin",
            Self::Viewer => "viewer",
            Self::Operator => "operator",
        })
    }
}

/// The user's state before the request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum CaseSetup {
    /// An active slot and a held seat.
    Held,
    /// A bought seat. The token is used up.
    Bought,
    /// A held seat, whose payment waits for a provider.
    Waiting,
}

/// Two users, and the objects of the first one.
pub(super) struct RoleCase {
    pub(super) user: TestUser,
    pub(super) other: TestUser,
    /// The user's reservation, held or confirmed.
    pub(super) reservation: String,
    /// A hold of the other user.
    pub(super) others: String,
    /// The user's payment, if there is one.
    pub(super) payment: String,
    /// The user's coupon.
    pub(super) issue: String,
    /// A unique name.
    pub(super) name: String,
}

impl RoleCase {
    /// Values that only the user may see.
    pub(super) fn secrets(&self) -> impl Iterator<Item = &str> {
        let all =
            [&self.user.user, &self.user.token, &self.reservation, &self.payment, &self.issue];
        all.into_iter().map(String::as_str).filter(|secret| !secret.is_empty())
    }
}

/// A sale on two instances: one that trusts every user id, for the setup, and one with
/// authentication, for the requests.
pub(super) struct RoleFixture {
    _world: TestWorld,
    helper: ApiClient,
    strict: ApiClient,
    seats: AtomicU32,
}

impl RoleFixture {
    pub(super) async fn set() -> Self {
        let stores = TestStores::new().await;
        let mut strict = stores.args();
        strict.secrets.auth = Some("service-key,jwt".into());
        strict.secrets.service_keys = Some(SERVICE_KEY.into());
        strict.secrets.jwt_key = Some(JWT_SECRET.into());
        strict.secrets.admin_keys =
            Some(format!("watch:viewer:{VIEWER_KEY},shift:operator:{OPERATOR_KEY}"));
        let args = [stores.args(), strict];
        let world = TestWorld::with_args(stores, &args).await;
        world.put_show(5_000, 1_000).await;
        for name in ["off", "fresh"] {
            world.api.put(&format!("/admin/coupons/{name}"), &coupon(100, 100)).await.expect(200);
            world.wait_on_every_instance(&format!("/v1/coupons/{name}"), |_| true).await;
        }
        world.api.put("/admin/rewards/hello", &reward()).await.expect(200);
        world.wait_on_every_instance("/v1/rewards/hello", |_| true).await;
        let (helper, strict) = (world.api.for_instance(0), world.api.for_instance(1));
        Self { _world: world, helper, strict, seats: AtomicU32::new(1) }
    }

    /// Two new users and their objects.
    pub(super) async fn case(&self, needs: CaseSetup) -> RoleCase {
        let api = &self.helper;
        let (user, other) = tokio::join!(self.join_new_user(), self.join_new_user());
        let issued = api.post("/v1/coupons/off/issues").user(&user.user).send().await.expect(201);
        let (reservation, others) = tokio::join!(self.hold_seats(&user), self.hold_seats(&other));
        let mut payment = String::new();
        if needs == CaseSetup::Bought {
            payment = id(&api.pay(&user.token, &reservation, &new_key()).await.expect(201));
        }
        if needs == CaseSetup::Waiting {
            let body = json!({"reservation_id": reservation, "method": "external"});
            let call = api.post("/v1/payments").token(&user.token).key(&new_key());
            payment = id(&call.json(&body).send().await.expect(201));
        }
        RoleCase {
            user,
            other,
            reservation,
            others,
            payment,
            issue: id(&issued),
            name: format!("n{}", new_key()),
        }
    }

    async fn join_new_user(&self) -> TestUser {
        let guest = self.helper.active_user(CONCERT).await;
        self.helper.charge(&guest.user, 10_000).await;
        guest
    }

    async fn hold_seats(&self, guest: &TestUser) -> String {
        let seat = self.seats.fetch_add(1, Ordering::Relaxed);
        self.helper.hold_seats(&guest.token, SCHEDULE, &[seat]).await
    }

    /// A free seat.
    pub(super) fn free_seat(&self) -> u32 {
        self.seats.fetch_add(1, Ordering::Relaxed)
    }

    /// The user's state, as the user sees it.
    pub(super) async fn user_state(&self, case: &RoleCase) -> Value {
        let api = &self.helper;
        let mut seen = vec![api.poll(CONCERT, &case.user.token).await.body["status"].clone()];
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

    /// A request to the public listener with the credentials of the role. `token` says whether a
    /// queue token is sent.
    pub(super) fn public(
        &self,
        case: &RoleCase,
        role: CallerRole,
        token: bool,
        method: &Method,
        path: &str,
    ) -> ApiRequest {
        let call = identified(self.strict.call(method.clone(), path), case, role);
        match role {
            _ if !token => call,
            CallerRole::Anonymous => call,
            CallerRole::Other => call.token(&case.other.token),
            _ => call.token(&case.user.token),
        }
    }

    /// A request to the admin listener.
    pub(super) fn admin(
        &self,
        case: &RoleCase,
        role: CallerRole,
        method: &Method,
        path: &str,
    ) -> ApiRequest {
        identified(self.strict.keyless_admin_call(method.clone(), path), case, role)
    }
}

fn identified(call: ApiRequest, case: &RoleCase, role: CallerRole) -> ApiRequest {
    let bearer =
        |call: ApiRequest, key: &str| call.header("authorization", &format!("Bearer {key}"));
    match role {
        CallerRole::Anonymous => call,
        CallerRole::User => bearer(call, &jwt(&case.user.user)),
        CallerRole::Other | CallerRole::Thief => bearer(call, &jwt(&case.other.user)),
        CallerRole::Service => bearer(call, SERVICE_KEY).user(&case.user.user),
        CallerRole::Admin => bearer(call, ADMIN_KEY).user(&case.user.user),
        CallerRole::Viewer => bearer(call, VIEWER_KEY).user(&case.user.user),
        CallerRole::Operator => bearer(call, OPERATOR_KEY).user(&case.user.user),
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
    json!({"title": "Hello", "starts_at": "2020-01-01T00:00:00Z", "ends_at": "2100-01-01T00:00:00Z",
        "active": true, "conditions": [],
        "reward": {"kind": "points", "amount": 5}})
}

fn id(body: &Value) -> String {
    body["id"].as_str().unwrap().to_owned()
}
