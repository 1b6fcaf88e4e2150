//! kill -9 during many concurrent payments.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;

use crate::support::api::TestUser;
use crate::support::world::{concert_definition, fast_queue_settings};
use crate::support::{
    ApiClient, ApiResponse, CONCERT, SCHEDULE, TestStores, UsherProcess, new_key,
};

const GUESTS: u32 = 200;
const CHARGED: i64 = 10_000;
const PRICE: i64 = 4_000;
/// Every payment takes its steps, as in a cluster.
const IN_STEPS: &str = "redis.many_servers=return";

/// A user with money and a held seat, about to pay.
struct PayingUser {
    guest: TestUser,
    reservation: String,
    key: String,
}

async fn payers(api: &ApiClient) -> Vec<PayingUser> {
    api.put("/admin/queues/show", &fast_queue_settings()).await.expect(200);
    api.put("/admin/concerts/show", &concert_definition(GUESTS, PRICE)).await.expect(200);
    let payers = (1..=GUESTS).map(async |seat| {
        let guest = api.active_user(CONCERT).await;
        api.charge(&guest.user, CHARGED).await;
        let reservation = api.hold_seats(&guest.token, SCHEDULE, &[seat]).await;
        PayingUser { guest, reservation, key: new_key() }
    });
    futures::future::join_all(payers).await
}

/// Payments between their first step and their end.
async fn unfinished_payments(stores: &TestStores) -> i64 {
    let key = stores.key(stores.partition_of(CONCERT), &format!("q:{CONCERT}:due"));
    stores.redis().await.ask(&["ZCARD", &key]).await.int()
}

/// Sends payments concurrently and calls `strike` when some have been answered. `None` is a lost
/// response.
async fn pay_until(
    api: &ApiClient,
    payers: &[PayingUser],
    answered: usize,
    strike: impl AsyncFnOnce(),
) -> Vec<(usize, Option<ApiResponse>)> {
    let mut under_way: FuturesUnordered<_> = payers
        .iter()
        .enumerate()
        .map(|(at, payer)| {
            let call = api.payment(&payer.guest.token, &payer.reservation, &payer.key);
            // Four a millisecond: a slow machine sends and reads at the same pace, so some payments
            // are always in flight.
            let turn = Duration::from_micros(at as u64 * 250);
            tokio::spawn(async move {
                tokio::time::sleep(turn).await;
                (at, call.try_send().await.ok())
            })
        })
        .collect();
    let mut answers = Vec::new();
    while answers.len() < answered {
        answers.push(under_way.next().await.unwrap().unwrap());
    }
    strike().await;
    answers.extend(under_way.map(Result::unwrap).collect::<Vec<_>>().await);
    answers
}

/// Invariants once everything is idle, whichever process was killed at any time.
async fn assert_nothing_was_lost(
    stores: &TestStores,
    payers: &[PayingUser],
    answers: &[(usize, Option<ApiResponse>)],
) {
    let facts = stores.audit().await;
    for (at, answer) in answers {
        let Some(answer) = answer else { continue };
        if answer.status != 201 {
            assert!([202, 503].contains(&answer.status), "{answer:?}");
            continue;
        }
        let id = answer.body["id"].as_str().unwrap();
        let payment = facts.payments.values().find(|payment| payment.id.to_string() == id);
        let payment = payment.unwrap_or_else(|| panic!("a confirmed payment is lost: {answer:?}"));
        assert_eq!(payment.status, "confirmed", "the stored status matches the response");
        assert_eq!(payment.user_id.to_string(), payers[*at].guest.user);
    }
    let confirmed = i64::try_from(facts.payments_that_are("confirmed")).unwrap();
    let balances: i64 = facts.wallets.values().sum();
    assert_eq!(balances + confirmed * PRICE, i64::from(GUESTS) * CHARGED, "money is conserved");
    assert_eq!(facts.sold.len(), usize::try_from(confirmed).unwrap(), "one seat per payment");
    let ends = facts.payments_that_are("confirmed") + facts.payments_that_are("voided");
    assert_eq!(
        ends,
        facts.payments.len(),
        "every wallet could pay, so every payment has one of these outcomes"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_process_loses_no_payment() {
    kill_three_times("").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_process_loses_no_payment_in_steps() {
    let cut_off = kill_three_times(IN_STEPS).await;
    assert!(cut_off > 0, "no payment was cut off between two steps");
}

/// Returns how many payments were cut off between two steps.
async fn kill_three_times(failpoints: &str) -> i64 {
    let stores = TestStores::new().await;
    let mut process = UsherProcess::start_failing(&stores, failpoints).await;
    let payers =
        payers(&ApiClient::new(vec![[process.public.clone(), process.admin.clone()]])).await;

    // Killed three times at different moments. Most users without a response repeat their request.
    let (mut all, mut rest, mut lost_in_all) = (Vec::new(), payers, 0);
    let mut cut_off = 0;
    for share in [40, 10, 5] {
        let api = ApiClient::new(vec![[process.public.clone(), process.admin.clone()]]);
        let answers =
            pay_until(&api, &rest, rest.len() / share, async || process.kill().await).await;
        let lost: Vec<usize> =
            answers.iter().filter(|(_, answer)| answer.is_none()).map(|(at, _)| *at).collect();
        lost_in_all += lost.len();
        cut_off += unfinished_payments(&stores).await;
        process = UsherProcess::start_failing(&stores, failpoints).await;
        let (mut again, mut done) = (Vec::new(), Vec::new());
        for (at, payer) in rest.into_iter().enumerate() {
            let asks_again =
                lost.iter().position(|lost| *lost == at).is_some_and(|nth| nth % 4 != 0);
            if asks_again { again.push(payer) } else { done.push((at, payer)) }
        }
        for (at, payer) in done {
            let answer =
                answers.iter().find(|(answered, _)| *answered == at).and_then(|(_, it)| it.clone());
            all.push((payer, answer));
        }
        rest = again;
    }
    assert!(lost_in_all > 10, "the kills hit nothing: {lost_in_all} lost");
    let api = ApiClient::new(vec![[process.public.clone(), process.admin.clone()]]);
    for (at, answer) in pay_until(&api, &rest, 0, async || {}).await {
        let answer = answer.expect("the process is not killed any more");
        assert_eq!(
            answer.expect(201)["status"],
            "confirmed",
            "an interrupted payment can be continued: {at}"
        );
    }
    let (payers, answers): (Vec<_>, Vec<_>) = all.into_iter().unzip();
    let answers: Vec<_> = answers.into_iter().enumerate().collect();
    assert_nothing_was_lost(&stores, &payers, &answers).await;
    cut_off
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_one_of_two_processes_loses_no_payment() {
    for failpoints in ["", IN_STEPS] {
        kill_one_of_two(failpoints).await;
    }
}

/// Only the victim has the fail points, so both ways of a payment meet.
async fn kill_one_of_two(failpoints: &str) {
    let stores = TestStores::new().await;
    let (victim, survivor) = (
        UsherProcess::start_failing(&stores, failpoints).await,
        UsherProcess::start(&stores).await,
    );
    let address = |process: &UsherProcess| [process.public.clone(), process.admin.clone()];
    let api = ApiClient::new(vec![address(&victim), address(&survivor)]);
    let alone = ApiClient::new(vec![address(&survivor)]);
    let payers = payers(&alone).await;
    crate::support::eventually("the other instance knows the concert", || async {
        (api.for_instance(0).get("/v1/concerts/show").send().await.status == 200).then_some(())
    })
    .await;

    let mut answers = pay_until(&api, &payers, 30, async || victim.kill().await).await;
    let lost: Vec<usize> =
        answers.iter().filter(|(_, answer)| answer.is_none()).map(|(at, _)| *at).collect();
    assert!(!lost.is_empty(), "the kill came too late to hit anything");
    // Half of the users without a response repeat their request at the other instance, which
    // continues the payments.
    for at in lost.iter().step_by(2) {
        let payer = &payers[*at];
        let answer = alone.pay(&payer.guest.token, &payer.reservation, &payer.key).await;
        assert_eq!(answer.expect(201)["status"], "confirmed");
        answers.push((*at, Some(answer)));
    }
    assert_nothing_was_lost(&stores, &payers, &answers).await;
}
