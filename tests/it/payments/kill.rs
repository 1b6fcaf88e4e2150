//! kill -9 in the middle of a rush of payments.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;

use crate::support::api::Guest;
use crate::support::world::{fast_queue, show};
use crate::support::{Answer, Api, NIGHT, Process, SHOW, Stores, new_key};

const GUESTS: u32 = 200;
const CHARGED: i64 = 10_000;
const PRICE: i64 = 4_000;

/// A guest with money and a seat, about to pay.
struct Payer {
    guest: Guest,
    reservation: String,
    key: String,
}

async fn payers(api: &Api) -> Vec<Payer> {
    api.put("/admin/queues/show", &fast_queue()).await.expect(200);
    api.put("/admin/concerts/show", &show(GUESTS, PRICE)).await.expect(200);
    let payers = (1..=GUESTS).map(async |seat| {
        let guest = api.active_guest(SHOW).await;
        api.charge(&guest.user, CHARGED).await;
        let reservation = api.held(&guest.token, NIGHT, &[seat]).await;
        Payer { guest, reservation, key: new_key() }
    });
    futures::future::join_all(payers).await
}

/// How many payments stand between their first step and their end.
async fn under_way(stores: &Stores) -> i64 {
    let key = stores.key(stores.partition_of(SHOW), &format!("q:{SHOW}:due"));
    stores.redis().await.ask(&["ZCARD", &key]).await.int()
}

/// Sends payments side by side and calls `strike` when some of them have been answered. `None` stands for a lost answer.
async fn pay_until(
    api: &Api,
    payers: &[Payer],
    answered: usize,
    strike: impl AsyncFnOnce(),
) -> Vec<(usize, Option<Answer>)> {
    let mut under_way: FuturesUnordered<_> = payers
        .iter()
        .enumerate()
        .map(|(at, payer)| {
            let call = api.payment(&payer.guest.token, &payer.reservation, &payer.key);
            // Four a millisecond: a machine that is slow to read answers is as slow to send, so that some are always under way.
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

/// What must hold once everything is at rest, whoever was killed and when.
async fn nothing_was_lost(stores: &Stores, payers: &[Payer], answers: &[(usize, Option<Answer>)]) {
    let facts = stores.audit().await;
    for (at, answer) in answers {
        let Some(answer) = answer else { continue };
        if answer.status != 201 {
            assert!([202, 503].contains(&answer.status), "{answer:?}");
            continue;
        }
        let id = answer.body["id"].as_str().unwrap();
        let payment = facts.payments.values().find(|payment| payment.id.to_string() == id);
        let payment = payment.unwrap_or_else(|| panic!("an answered payment is gone: {answer:?}"));
        assert_eq!(payment.status, "confirmed", "it was answered as such");
        assert_eq!(payment.user_id.to_string(), payers[*at].guest.user);
    }
    let confirmed = i64::try_from(facts.payments_that_are("confirmed")).unwrap();
    let balances: i64 = facts.wallets.values().sum();
    assert_eq!(balances + confirmed * PRICE, i64::from(GUESTS) * CHARGED, "money is conserved");
    assert_eq!(facts.sold.len(), usize::try_from(confirmed).unwrap(), "a seat for each payment");
    let ends = facts.payments_that_are("confirmed") + facts.payments_that_are("voided");
    assert_eq!(
        ends,
        facts.payments.len(),
        "every wallet could pay, so every payment is one of these"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_killed_in_the_middle_of_payments_loses_nothing() {
    let stores = Stores::new().await;
    let mut process = Process::start(&stores).await;
    let payers = payers(&Api::new(vec![[process.public.clone(), process.admin.clone()]])).await;

    // Struck down three times, each time at another moment; most of those who heard nothing ask again.
    let (mut all, mut rest, mut lost_in_all) = (Vec::new(), payers, 0);
    let mut cut_off = 0;
    for share in [40, 10, 5] {
        let api = Api::new(vec![[process.public.clone(), process.admin.clone()]]);
        let answers =
            pay_until(&api, &rest, rest.len() / share, async || process.kill().await).await;
        let lost: Vec<usize> =
            answers.iter().filter(|(_, answer)| answer.is_none()).map(|(at, _)| *at).collect();
        lost_in_all += lost.len();
        cut_off += under_way(&stores).await;
        process = Process::start(&stores).await;
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
    assert!(
        lost_in_all > 10 && cut_off > 0,
        "the kills hit nothing: {lost_in_all} lost, {cut_off} cut off"
    );
    let api = Api::new(vec![[process.public.clone(), process.admin.clone()]]);
    for (at, answer) in pay_until(&api, &rest, 0, async || {}).await {
        let answer = answer.expect("nobody is killed any more");
        assert_eq!(
            answer.expect(201)["status"],
            "confirmed",
            "a payment that was cut off can be taken up: {at}"
        );
    }
    let (payers, answers): (Vec<_>, Vec<_>) = all.into_iter().unzip();
    let answers: Vec<_> = answers.into_iter().enumerate().collect();
    nothing_was_lost(&stores, &payers, &answers).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_processes_killed_in_the_middle_of_payments_loses_nothing() {
    let stores = Stores::new().await;
    let (victim, survivor) = (Process::start(&stores).await, Process::start(&stores).await);
    let address = |process: &Process| [process.public.clone(), process.admin.clone()];
    let api = Api::new(vec![address(&victim), address(&survivor)]);
    let alone = Api::new(vec![address(&survivor)]);
    let payers = payers(&alone).await;
    crate::support::eventually("the other instance knows the show", || async {
        (api.only(0).get("/v1/concerts/show").send().await.status == 200).then_some(())
    })
    .await;

    let mut answers = pay_until(&api, &payers, 30, async || victim.kill().await).await;
    let lost: Vec<usize> =
        answers.iter().filter(|(_, answer)| answer.is_none()).map(|(at, _)| *at).collect();
    assert!(!lost.is_empty(), "the kill came too late to hit anything");
    // Half of those who heard nothing ask the survivor, which takes up what the other left.
    for at in lost.iter().step_by(2) {
        let payer = &payers[*at];
        let answer = alone.pay(&payer.guest.token, &payer.reservation, &payer.key).await;
        assert_eq!(answer.expect(201)["status"], "confirmed");
        answers.push((*at, Some(answer)));
    }
    nothing_was_lost(&stores, &payers, &answers).await;
}
