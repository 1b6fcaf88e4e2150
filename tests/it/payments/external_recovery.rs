//! External payments and the loss of Redis: what waits goes on, and a reference pays once.

use serde_json::json;

use super::external_sale::{ExternalSale, OFF, PRICE};
use crate::support::{CONCERT, SCHEDULE, TestStores, eventually, new_key};

async fn open() -> ExternalSale {
    ExternalSale::open_on(TestStores::with_own_redis().await).await
}

async fn lose_redis(sale: &ExternalSale) {
    sale.world.stores.wait_until_written().await;
    crate::recovery::restore::lose_redis(&sale.world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_payment_survives_the_loss_of_redis() {
    let sale = open().await;
    let (guest, reservation) = sale.holder(5_000, &[1, 2]).await;
    let issue = sale.coupon_issue(&guest).await;
    let more = json!({"coupon_issue_id": issue, "wallet_amount": 3_000});
    let key = new_key();
    let payment = sale.begin(&guest, &reservation, more.clone(), &key).await.expect(201);
    lose_redis(&sale).await;

    let other = eventually("a user is active again", async || {
        let guest = sale.users.join_new_user(CONCERT).await;
        let ticket = sale.users.poll(CONCERT, &guest.token).await;
        (ticket.body["status"] == "active").then_some(guest)
    })
    .await;
    assert_eq!(sale.users.seats(&other.token, SCHEDULE).await[..2], ["held", "held"]);
    sale.users.hold(&other.token, SCHEDULE, &[2]).await.problem(409, "seat_taken");
    assert_eq!(sale.read(&guest, &payment).await["status"], "pending");
    assert_eq!(sale.users.balance(&guest.user).await, 2_000);
    let again = sale.begin(&guest, &reservation, more, &key).await;
    assert_eq!(again.expect(201)["id"], payment["id"], "the key still leads to the payment");
    // The coupon is still reserved.
    let (_, second) = (&other, sale.users.hold_seats(&other.token, SCHEDULE, &[3]).await);
    let foreign = json!({"coupon_issue_id": issue});
    let refused = sale.begin(&other, &second, foreign, &new_key()).await;
    refused.problem(422, "coupon_not_applicable");
    sale.world.stores.audit().await;

    let confirmed = sale.confirm(&payment, "pay_1").await.expect(200);
    assert_eq!(
        (&confirmed["status"], &confirmed["paid"]),
        (&json!("confirmed"), &json!(2 * PRICE - OFF))
    );
    sale.world.stores.audit().await;
    lose_redis(&sale).await;
    assert_eq!(sale.confirm(&payment, "pay_1").await.expect(200)["status"], "confirmed");
    sale.world.stores.audit().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restored_payment_is_voided_after_its_time() {
    let sale = open().await;
    let (guest, reservation) = sale.holder(5_000, &[1]).await;
    let more = json!({"wallet_amount": 3_000});
    let payment = sale.begin(&guest, &reservation, more, &new_key()).await.expect(201);
    lose_redis(&sale).await;
    assert_eq!(sale.end_waits().await, 1);
    eventually("the payment is voided", async || {
        (sale.read(&guest, &payment).await["status"] == "voided").then_some(())
    })
    .await;
    assert_eq!(sale.users.balance(&guest.user).await, 5_000);
    sale.confirm(&payment, "late").await.problem(409, "payment_voided");
    sale.world.stores.audit().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn references_and_counts_survive_the_loss_of_redis() {
    let sale = open().await;
    let (_, first) = sale.pending(1).await;
    sale.confirm(&first, "pay_1").await.expect(200);
    let guest = sale.users.active_user(CONCERT).await;
    let mut waiting = Vec::new();
    for seat in 2..=5 {
        waiting.push(sale.users.hold_seats(&guest.token, SCHEDULE, &[seat]).await);
    }
    let mut last = json!(null);
    for reservation in &waiting[..3] {
        last = sale.begin(&guest, reservation, json!({}), &new_key()).await.expect(201);
    }
    lose_redis(&sale).await;
    sale.confirm(&last, "pay_1").await.problem(409, "reference_used");
    // The hold of the fourth is lost, but not the count.
    let guest_again = crate::support::api::TestUser {
        token: sale.users.join(CONCERT, &guest.user).await.body["token"].as_str().unwrap().into(),
        user: guest.user.clone(),
    };
    sale.users.wait_until_active(CONCERT, &guest_again).await;
    let reservation = sale.users.hold_seats(&guest_again.token, SCHEDULE, &[6]).await;
    let fourth = sale.begin(&guest_again, &reservation, json!({}), &new_key()).await;
    fourth.problem(409, "too_many_pending");
    sale.confirm(&last, "pay_2").await.expect(200);
    sale.world.stores.audit().await;
}
