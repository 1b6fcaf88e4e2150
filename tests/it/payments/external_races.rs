//! Many external payments at once, while processes are killed with -9: the provider answers at
//! once, twice, late, with a wrong amount, with a used reference, or never.

use std::time::Duration;

use futures::future::join_all;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use super::external_sale::{ExternalSale, PRICE, SERVICE_KEY};
use crate::support::api::TestUser;
use crate::support::{ApiClient, UsherProcess, eventually, new_key, test_seed};

const BUYERS: u32 = 48;
const CHARGED: i64 = 5_000;
const WALLET_PART: i64 = 3_000;

/// What a buyer saw.
struct BuyerFate {
    guest: TestUser,
    payment: String,
    /// The statuses and codes of the confirmations that were answered.
    answers: Vec<(u16, Value)>,
}

async fn service(api: &ApiClient, payment: &str, verb: &str, body: &Value) -> Option<(u16, Value)> {
    let call = api.post(&format!("/v1/payments/{payment}/{verb}"));
    let call = call.header("authorization", &format!("Bearer {SERVICE_KEY}")).json(body);
    let answer = call.try_send().await.ok()?;
    Some((answer.status, answer.body))
}

/// One purchase on processes that may die at any time.
async fn buy(
    api: &ApiClient,
    (guest, reservation): (TestUser, String),
    at: u32,
    mut random: SmallRng,
) -> Option<BuyerFate> {
    tokio::time::sleep(Duration::from_millis(random.random_range(0..1_500))).await;
    let body = json!({"reservation_id": reservation, "method": "external",
        "wallet_amount": WALLET_PART});
    let key = new_key();
    let mut begun = None;
    for _ in 0..random.random_range(1..4) {
        let call = api.post("/v1/payments").token(&guest.token).key(&key).json(&body);
        begun = call.try_send().await.ok().filter(|answer| answer.status == 201);
        if begun.is_some() {
            break;
        }
    }
    let payment = begun?.body["id"].as_str()?.to_owned();
    // Every eighth reference belongs to the payment before it.
    let reference = if at.is_multiple_of(8) { at.saturating_sub(1) } else { at };
    let amount = if at % 11 == 5 { PRICE } else { PRICE - WALLET_PART };
    let proof = json!({"provider": "toss", "reference": format!("r{reference}"), "amount": amount});
    let mut answers = Vec::new();
    for _ in 0..random.random_range(0..4) {
        if random.random_bool(0.2) {
            service(api, &payment, "void", &json!({})).await;
        }
        answers.extend(service(api, &payment, "confirm", &proof).await);
    }
    Some(BuyerFate { guest, payment, answers })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_processes_leave_every_external_payment_with_one_end() {
    let sale = ExternalSale::open().await;
    let holders = join_all((1..=BUYERS).map(|seat| {
        let sale = &sale;
        async move { sale.holder(CHARGED, &[seat]).await }
    }))
    .await;
    let settings = [
        ("USHER_AUTH", "header,service-key".to_owned()),
        ("USHER_SERVICE_KEYS", SERVICE_KEY.to_owned()),
    ];
    let stores = &sale.world.stores;
    let mut processes = Vec::new();
    for _ in 0..3 {
        processes.push(UsherProcess::start_with(stores, &settings).await);
    }
    let addresses = processes.iter().map(|it| [it.public.clone(), it.admin.clone()]).collect();
    let api = ApiClient::new(addresses);
    let seed = test_seed();
    let buyers = holders.into_iter().zip(1..).map(|(holder, at)| {
        let random = SmallRng::seed_from_u64(seed.wrapping_mul(1_000).wrapping_add(u64::from(at)));
        buy(&api, holder, at, random)
    });
    let killed = async {
        for process in processes.drain(..2) {
            tokio::time::sleep(Duration::from_millis(500)).await;
            process.kill().await;
        }
    };
    let (fates, ()) = tokio::join!(join_all(buyers), killed);
    let fates: Vec<BuyerFate> = fates.into_iter().flatten().collect();
    // The time of those that are not confirmed passes.
    eventually("every payment is over", async || {
        sale.end_waits().await;
        (sale.unfinished().await == 0).then_some(())
    })
    .await;

    let facts = stores.audit().await;
    let mut confirmed = 0;
    for BuyerFate { guest, payment, answers } in fates {
        let fact = facts.payments.values().find(|fact| fact.id.to_string() == payment).unwrap();
        let balance = facts.wallets[&guest.user.parse().unwrap()];
        match fact.status.as_str() {
            "confirmed" => {
                confirmed += 1;
                assert_eq!(balance, CHARGED - WALLET_PART);
            }
            "voided" => {
                assert_eq!(balance, CHARGED);
                assert!(answers.iter().all(|(status, _)| *status != 200), "{answers:?}");
            }
            other => panic!("{payment} is {other}"),
        }
        for (status, body) in &answers {
            let expected = match status {
                200 => fact.status == "confirmed",
                409 => {
                    let code = body["code"].as_str().unwrap();
                    ["payment_voided", "reference_used"].contains(&code)
                }
                422 => body["code"] == "amount_mismatch",
                other => [202, 503].contains(other),
            };
            assert!(expected, "{payment} is {}: {answers:?}", fact.status);
        }
    }
    assert!(confirmed > 3, "only {confirmed} payments were confirmed");
}
