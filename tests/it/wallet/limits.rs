//! The limit of a wallet, which no refund is refused for, and references of charges and uses.

use serde_json::{Value, json};

use crate::support::api::{ApiClient, ApiResponse};
use crate::support::{CONCERT, SCHEDULE, TestStores, TestWorld, new_key, new_user, on_one_and_two};

const LARGEST: i64 = 9_007_199_254_740_991;
const PRICE: i64 = 3_000;

on_one_and_two!(refund_fits_into_a_full_wallet, reference_is_in_the_ledger);

async fn charge(api: &ApiClient, user: &str, amount: i64) -> ApiResponse {
    api.charge_with_key(user, amount, &new_key()).await
}

async fn cancel(api: &ApiClient, user: &str, reservation: &str) {
    let call = api.post(&format!("/v1/reservations/{reservation}/cancel"));
    let cancelled = call.user(user).key(&new_key()).send().await.expect(200);
    assert_eq!(cancelled["status"], "cancelled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limit_stops_charges_and_rewards_but_no_refund() {
    let stores = TestStores::new().await;
    let mut args = stores.args();
    args.stores.wallet.wallet_limit = Some("10000".into());
    let world = TestWorld::with_args(stores, &[args]).await;
    world.put_show(9, PRICE).await;
    let reward = json!({"title": "R", "starts_at": "2020-01-01T00:00:00Z",
        "ends_at": "2100-01-01T00:00:00Z", "reward": {"kind": "points", "amount": 1}});
    world.api.put("/admin/rewards/one", &reward).await.expect(200);
    let api = &world.api;
    let guest = api.active_user(CONCERT).await;
    charge(api, &guest.user, 10_001).await.problem(422, "balance_limit_exceeded");
    charge(api, &guest.user, 10_000).await.expect(201);
    charge(api, &guest.user, 1).await.problem(422, "balance_limit_exceeded");
    let claim = || api.post("/v1/rewards/one/claims").user(&guest.user).send();
    claim().await.problem(422, "balance_limit_exceeded");
    let reservation = api.hold_seats(&guest.token, SCHEDULE, &[1]).await;
    api.pay(&guest.token, &reservation, &new_key()).await.expect(201);
    charge(api, &guest.user, PRICE).await.expect(201);
    cancel(api, &guest.user, &reservation).await;
    assert_eq!(api.balance(&guest.user).await, 10_000 + PRICE);
    charge(api, &guest.user, 1).await.problem(422, "balance_limit_exceeded");
    let spend = json!({"amount": PRICE + 1});
    let spent = api.post("/v1/wallet/uses").user(&guest.user).key(&new_key()).json(&spend);
    spent.send().await.expect(201);
    claim().await.expect(201);
    world.stores.audit().await;
}

/// Charges leave room for the refund of everything that the user paid.
async fn refund_fits_into_a_full_wallet(world: TestWorld) {
    world.put_show(9, PRICE).await;
    let api = &world.api;
    let guest = api.active_user(CONCERT).await;
    charge(api, &guest.user, LARGEST).await.expect(201);
    let reservation = api.hold_seats(&guest.token, SCHEDULE, &[1]).await;
    api.pay(&guest.token, &reservation, &new_key()).await.expect(201);
    charge(api, &guest.user, 1).await.problem(422, "balance_limit_exceeded");
    cancel(api, &guest.user, &reservation).await;
    assert_eq!(api.balance(&guest.user).await, LARGEST);
    world.stores.audit().await;
}

async fn reference_is_in_the_ledger(world: TestWorld) {
    let api = &world.api;
    let (user, key) = (new_user(), new_key());
    let call =
        |path: &str, key: &str, body: Value| api.post(path).user(&user).key(key).json(&body).send();
    let charged = json!({"amount": 500, "reference": "order-4711 \u{b9e4}\u{b9e4}"});
    let first = call("/v1/wallet/charges", &key, charged.clone()).await.expect(201);
    assert_eq!(first["reference"], charged["reference"]);
    let again = call("/v1/wallet/charges", &key, charged.clone()).await;
    assert_eq!((again.header("idempotency-replayed"), again.expect(201)), (Some("true"), first));
    let other = json!({"amount": 500, "reference": "order-4712"});
    let refused = call("/v1/wallet/charges", &key, other).await;
    refused.problem(422, "idempotency_key_reused");
    let used = json!({"amount": 100, "reference": "x".repeat(64)});
    call("/v1/wallet/uses", &new_key(), used.clone()).await.expect(201);
    call("/v1/wallet/uses", &new_key(), json!({"amount": 1})).await.expect(201);
    // Before and after MySQL has the entries.
    for _ in 0..2 {
        let list = api.get("/v1/wallet/entries").user(&user).send().await.expect(200);
        let items = list["items"].as_array().unwrap();
        let references: Vec<_> = items.iter().map(|item| &item["reference"]).collect();
        assert_eq!(references, [&Value::Null, &used["reference"], &charged["reference"]]);
        world.stores.wait_until_idle().await;
    }
}
