//! A sale whose payments go through a provider: one instance for users, and two for the booking
//! backend with a service key.

use serde_json::{Value, json};

use crate::support::api::TestUser;
use crate::support::{ApiClient, ApiResponse, CONCERT, SCHEDULE, TestStores, TestWorld, new_key};

pub(crate) const SERVICE_KEY: &str = "5ervice-c2b7a9d84e5f6a1b3c8d7e9f0a";
pub(crate) const PRICE: i64 = 9_000;
/// What `off` takes off.
pub(crate) const OFF: i64 = 2_000;

pub(crate) struct ExternalSale {
    pub(crate) world: TestWorld,
    /// The instance that trusts the header of the user.
    pub(crate) users: ApiClient,
    /// The instances with a service key.
    pub(crate) backends: [ApiClient; 2],
}

impl ExternalSale {
    pub(crate) async fn open() -> Self {
        Self::open_on(TestStores::new().await).await
    }

    pub(crate) async fn open_on(stores: TestStores) -> Self {
        let mut strict = stores.args();
        strict.secrets.auth = Some("service-key".into());
        strict.secrets.service_keys = Some(SERVICE_KEY.into());
        let args = [stores.args(), strict.clone(), strict];
        let world = TestWorld::with_args(stores, &args).await;
        world.put_queue(CONCERT, crate::recovery::restore::queue_without_window()).await;
        let definition = crate::support::world::concert_definition(50, PRICE);
        world.put_concert(CONCERT, definition).await;
        let coupon = crate::coupons::payments::coupon(OFF, 0);
        world.api.put("/admin/coupons/off", &coupon).await.expect(200);
        let at = |at| world.api.for_instance(at);
        Self { users: at(0), backends: [at(1), at(2)], world }
    }

    /// A new user with money who holds these seats.
    pub(crate) async fn holder(&self, money: i64, seats: &[u32]) -> (TestUser, String) {
        let guest = self.users.active_user(CONCERT).await;
        if money > 0 {
            self.users.charge(&guest.user, money).await;
        }
        let reservation = self.users.hold_seats(&guest.token, SCHEDULE, seats).await;
        (guest, reservation)
    }

    /// `POST /v1/payments` with the method `external` and more fields.
    pub(crate) async fn begin(
        &self,
        guest: &TestUser,
        reservation: &str,
        more: Value,
        key: &str,
    ) -> ApiResponse {
        let mut body = json!({"reservation_id": reservation, "method": "external"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.users.post("/v1/payments").token(&guest.token).key(key).json(&body).send().await
    }

    /// A new user with a pending payment of this seat.
    pub(crate) async fn pending(&self, seat: u32) -> (TestUser, Value) {
        let (guest, reservation) = self.holder(0, &[seat]).await;
        let payment = self.begin(&guest, &reservation, json!({}), &new_key()).await.expect(201);
        (guest, payment)
    }

    /// A call of a backend.
    pub(crate) async fn service(
        &self,
        at: usize,
        payment: &Value,
        verb: &str,
        body: Value,
    ) -> ApiResponse {
        let path = format!("/v1/payments/{}/{verb}", payment["id"].as_str().unwrap());
        let call = self.backends[at].post(&path);
        call.header("authorization", &format!("Bearer {SERVICE_KEY}")).json(&body).send().await
    }

    /// Confirms what is due.
    pub(crate) async fn confirm(&self, payment: &Value, reference: &str) -> ApiResponse {
        let amount = &payment["due_amount"];
        let body = json!({"provider": "toss", "reference": reference, "amount": amount});
        self.service(0, payment, "confirm", body).await
    }

    pub(crate) async fn read(&self, guest: &TestUser, payment: &Value) -> Value {
        let path = format!("/v1/payments/{}", payment["id"].as_str().unwrap());
        self.users.get(&path).user(&guest.user).send().await.expect(200)
    }

    pub(crate) async fn reservation(&self, guest: &TestUser, payment: &Value) -> Value {
        let path = format!("/v1/reservations/{}", payment["reservation_id"].as_str().unwrap());
        self.users.get(&path).user(&guest.user).send().await.expect(200)
    }

    pub(crate) async fn coupon_issue(&self, guest: &TestUser) -> String {
        let issued = self.users.post("/v1/coupons/off/issues").user(&guest.user).send().await;
        issued.expect(201)["id"].as_str().unwrap().to_owned()
    }

    /// Payments without an end.
    pub(crate) async fn unfinished(&self) -> i64 {
        let stores = &self.world.stores;
        let due = stores.key(stores.partition_of(CONCERT), &format!("q:{CONCERT}:due"));
        stores.redis().await.ask(&["ZCARD", &due]).await.int()
    }

    /// Moves the end of a wait to now, as if the time had passed. Returns how many payments it
    /// found.
    pub(crate) async fn end_waits(&self) -> i64 {
        const SCRIPT: &str = "
            local clock = redis.call('TIME')
            local now, found = clock[1] * 1000 + math.floor(clock[2] / 1000), 0
            for _, id in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
              local p = cmsgpack.unpack(redis.call('HGET', KEYS[1], id))
              if p.state == 'pending' and p.external and p.external.due_at then
                p.external.due_at, found = now, found + 1
                redis.call('HSET', KEYS[1], id, cmsgpack.pack(p))
                redis.call('ZADD', KEYS[2], now, id)
              end
            end
            return found";
        let stores = &self.world.stores;
        let partition = stores.partition_of(CONCERT);
        let payments = stores.key(partition, "payments");
        let due = stores.key(partition, &format!("q:{CONCERT}:due"));
        stores.redis().await.ask(&["EVAL", SCRIPT, "2", &payments, &due]).await.int()
    }
}
