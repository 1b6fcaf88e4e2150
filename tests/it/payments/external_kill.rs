//! kill -9 at every edge of an external payment: nothing waits past its time, and a repeated call
//! reaches the end that the first one would have reached.

use serde_json::{Value, json};

use super::external_sale::{ExternalSale, OFF, PRICE, SERVICE_KEY};
use crate::support::api::TestUser;
use crate::support::{UsherProcess, eventually, new_key};

/// The process that is killed: for users and with a service key.
async fn failing(sale: &ExternalSale, point: &str) -> UsherProcess {
    let settings = [
        ("FAILPOINTS", format!("{point}=1*return(kill)")),
        ("USHER_AUTH", "header,service-key".to_owned()),
        ("USHER_SERVICE_KEYS", SERVICE_KEY.to_owned()),
    ];
    UsherProcess::start_with(&sale.world.stores, &settings).await
}

/// A payment with a coupon and a wallet part that waits for its provider.
async fn waiting(sale: &ExternalSale, seat: u32) -> (TestUser, Value) {
    let (guest, reservation) = sale.holder(5_000, &[seat]).await;
    let issue = sale.coupon_issue(&guest).await;
    let more = json!({"coupon_issue_id": issue, "wallet_amount": 3_000});
    let payment = sale.begin(&guest, &reservation, more, &new_key()).await.expect(201);
    (guest, payment)
}

const BEGIN_STEPS: [&str; 5] = [
    "payment/begin",
    "coupons/reserve",
    "payment/count_pending",
    "wallet/debit",
    "payment/await_external",
];
const CONFIRM_STEPS: [&str; 5] = [
    "coupons/reserve",
    "wallet/debit",
    "payment/claim_reference",
    "payment/confirm_external",
    "coupons/redeem",
];
const VOID_STEPS: [&str; 4] =
    ["payment/void", "wallet/refund", "coupons/return_issue", "payment/finish_void"];

fn edges(steps: &[&str]) -> Vec<String> {
    let both = |step: &&str| [format!("{step}.before"), format!("{step}.after")];
    steps.iter().flat_map(both).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_beginning_is_repeated_or_voided() {
    let sale = ExternalSale::open().await;
    for (at, point) in edges(&BEGIN_STEPS).into_iter().enumerate() {
        let seat = u32::try_from(at).unwrap() + 1;
        let (guest, reservation) = sale.holder(5_000, &[seat]).await;
        let more =
            json!({"coupon_issue_id": sale.coupon_issue(&guest).await, "wallet_amount": 3_000});
        let process = failing(&sale, &point).await;
        let body = json!({"reservation_id": reservation, "method": "external",
            "coupon_issue_id": more["coupon_issue_id"], "wallet_amount": 3_000});
        let key = new_key();
        let api = process.api();
        let call = api.post("/v1/payments").token(&guest.token).key(&key);
        let first = call.json(&body).try_send().await;
        assert!(first.is_err(), "{point}: {first:?}");
        process.wait_until_killed().await;
        // The user repeats the request at another instance.
        let again = sale.begin(&guest, &reservation, more, &key).await.expect(201);
        assert_eq!(again["due_amount"], PRICE - OFF - 3_000, "{point}");
        sale.confirm(&again, &format!("pay_{at}")).await.expect(200);
        assert_eq!(sale.users.balance(&guest.user).await, 2_000, "{point}");
    }
    sale.world.stores.audit().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_beginning_without_repetition_is_voided() {
    let sale = ExternalSale::open().await;
    for (at, point) in edges(&BEGIN_STEPS[1..]).into_iter().enumerate() {
        let seat = u32::try_from(at).unwrap() + 1;
        let (guest, reservation) = sale.holder(5_000, &[seat]).await;
        let issue = sale.coupon_issue(&guest).await;
        let process = failing(&sale, &point).await;
        let body = json!({"reservation_id": reservation, "method": "external",
            "coupon_issue_id": issue, "wallet_amount": 3_000});
        let call = process.api().post("/v1/payments").token(&guest.token).key(&new_key());
        assert!(call.json(&body).try_send().await.is_err(), "{point}");
        process.wait_until_killed().await;
    }
    // Those that were killed after the last step wait for their provider, and it never answers.
    eventually("every payment is over", async || {
        sale.end_waits().await;
        let due = sale.unfinished().await;
        (due == 0).then_some(())
    })
    .await;
    let facts = sale.world.stores.audit().await;
    assert_eq!(facts.payments_that_are("voided"), facts.payments.len());
    assert!(facts.wallets.values().all(|balance| *balance == 5_000), "{:?}", facts.wallets);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_confirmation_is_repeated() {
    let sale = ExternalSale::open().await;
    for (at, point) in edges(&CONFIRM_STEPS).into_iter().enumerate() {
        let seat = u32::try_from(at).unwrap() + 1;
        let (_, payment) = waiting(&sale, seat).await;
        let process = failing(&sale, &point).await;
        let reference = format!("pay_{at}");
        let body = json!({"provider": "toss", "reference": reference,
            "amount": payment["due_amount"]});
        let path = format!("/v1/payments/{}/confirm", payment["id"].as_str().unwrap());
        let call = process.api().post(&path);
        let call = call.header("authorization", &format!("Bearer {SERVICE_KEY}")).json(&body);
        assert!(call.try_send().await.is_err(), "{point}");
        process.wait_until_killed().await;
        // The provider's second webhook reaches another instance.
        assert_eq!(sale.confirm(&payment, &reference).await.expect(200)["status"], "confirmed");
    }
    let facts = sale.world.stores.audit().await;
    assert_eq!(facts.payments_that_are("confirmed"), facts.payments.len());
    assert!(facts.wallets.values().all(|balance| *balance == 2_000), "{:?}", facts.wallets);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_void_is_finished() {
    let sale = ExternalSale::open().await;
    for (at, point) in edges(&VOID_STEPS).into_iter().enumerate() {
        let seat = u32::try_from(at).unwrap() + 1;
        let (guest, payment) = waiting(&sale, seat).await;
        let process = failing(&sale, &point).await;
        let path = format!("/v1/payments/{}/void", payment["id"].as_str().unwrap());
        let call = process.api().post(&path).user(&guest.user);
        assert!(call.try_send().await.is_err(), "{point}");
        process.wait_until_killed().await;
        let voided = sale.service(0, &payment, "void", json!({})).await.expect(200);
        assert_eq!(voided["status"], "voided", "{point}");
        sale.confirm(&payment, &format!("late_{at}")).await.problem(409, "payment_voided");
    }
    let facts = sale.world.stores.audit().await;
    assert_eq!(facts.payments_that_are("voided"), facts.payments.len());
    assert!(facts.wallets.values().all(|balance| *balance == 5_000), "{:?}", facts.wallets);
}
