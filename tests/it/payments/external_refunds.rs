//! Refunds of external payments: the wallet part first, and the rest is due from the provider.

use serde_json::{Value, json};

use super::external_sale::{ExternalSale, PRICE};
use crate::recovery::restore::lose_redis;
use crate::support::api::TestUser;
use crate::support::{ApiResponse, eventually, new_key};

async fn cancel(
    sale: &ExternalSale,
    guest: &TestUser,
    payment: &Value,
    body: Value,
) -> ApiResponse {
    let id = payment["reservation_id"].as_str().unwrap();
    let call = sale.users.post(&format!("/v1/reservations/{id}/cancel")).user(&guest.user);
    call.key(&new_key()).json(&body).send().await
}

async fn refunds_due(sale: &ExternalSale, count: usize) -> Value {
    eventually("the list of refunds", async || {
        let call = sale.world.api.admin_call(reqwest::Method::GET, "/admin/refunds-due");
        let list = call.send().await.expect(200);
        (list["items"].as_array().unwrap().len() == count).then_some(list)
    })
    .await
}

/// Three seats for 27,000: 10,000 from the wallet, 17,000 from the provider.
async fn bought(sale: &ExternalSale) -> (TestUser, Value) {
    let (guest, reservation) = sale.holder(10_000, &[1, 2, 3]).await;
    let more = json!({"wallet_amount": 10_000});
    let pending = sale.begin(&guest, &reservation, more, &new_key()).await.expect(201);
    let payment = sale.confirm(&pending, "pay_1").await.expect(200);
    (guest, payment)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancellation_gives_back_the_wallet_part_first() {
    let sale = ExternalSale::open().await;
    let (guest, payment) = bought(&sale).await;
    cancel(&sale, &guest, &payment, json!({"seats": [1]})).await.expect(200);
    assert_eq!(sale.users.balance(&guest.user).await, PRICE, "all from the wallet part");
    let read = sale.read(&guest, &payment).await;
    assert_eq!((&read["status"], &read["refund_due_amount"]), (&json!("confirmed"), &json!(0)));
    sale.world.stores.audit().await;

    cancel(&sale, &guest, &payment, json!({"seats": [2]})).await.expect(200);
    assert_eq!(sale.users.balance(&guest.user).await, 10_000);
    let read = sale.read(&guest, &payment).await;
    assert_eq!(
        (&read["status"], &read["refund_due_amount"], &read["refunded"]),
        (&json!("refund_due"), &json!(8_000), &json!(18_000))
    );
    sale.world.stores.audit().await;

    let report = |reference: &str, amount: i64| {
        let body = json!({"reference": reference, "amount": amount});
        sale.service(1, &payment, "refunded", body)
    };
    let mismatch = report("refund_1", 8_001).await.problem(422, "amount_mismatch");
    assert_eq!(mismatch["due_amount"], 8_000);
    let reported = report("refund_1", 8_000).await.expect(200);
    assert_eq!(reported["status"], "confirmed", "one seat is left");
    assert_eq!(report("refund_1", 8_000).await.expect(200), reported, "again: the same");
    report("refund_1", 7_999).await.problem(422, "amount_mismatch");
    report("refund_2", 1).await.problem(422, "amount_mismatch");

    cancel(&sale, &guest, &payment, json!({})).await.expect(200);
    assert_eq!(sale.users.balance(&guest.user).await, 10_000);
    let list = refunds_due(&sale, 1).await;
    let due = &list["items"][0];
    assert_eq!(
        (&due["payment_id"], &due["refund_due_amount"], &due["provider"], &due["reference"]),
        (&payment["id"], &json!(PRICE), &json!("toss"), &json!("pay_1"))
    );
    assert_eq!(due["user_id"], guest.user);
    let part = report("refund_2", 4_000).await.expect(200);
    assert_eq!(
        (&part["status"], &part["refund_due_amount"]),
        (&json!("refund_due"), &json!(5_000))
    );
    assert_eq!(report("refund_3", 5_000).await.expect(200)["status"], "refunded");
    refunds_due(&sale, 0).await;
    assert_eq!(sale.confirm(&payment, "pay_1").await.expect(200)["status"], "refunded");
    sale.world.stores.audit().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refund_that_is_due_survives_the_loss_of_redis() {
    let sale = ExternalSale::open_on(crate::support::TestStores::with_own_redis().await).await;
    let (guest, payment) = bought(&sale).await;
    cancel(&sale, &guest, &payment, json!({})).await.expect(200);
    let stores = &sale.world.stores;
    stores.audit().await;
    sqlx::query("UPDATE payments SET settled_at = settled_at - INTERVAL 3 DAY")
        .execute(&stores.mysql)
        .await
        .unwrap();
    lose_redis(&sale.world).await;
    let body = json!({"reference": "refund_1", "amount": 17_000});
    sale.service(0, &payment, "refunded", body).await.expect(200);
    refunds_due(&sale, 0).await;
    assert_eq!(sale.users.balance(&guest.user).await, 10_000);
}
