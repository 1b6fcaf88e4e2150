//! kill -9 while coupons and rewards are issued.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use serde_json::json;

use crate::coupons::payments::{audit, coupon, issue};
use crate::support::world::{concert_definition, fast_queue_settings};
use crate::support::{
    ApiClient, CONCERT, SCHEDULE, TestStores, UsherProcess, eventually, new_key, new_user,
};

fn address(process: &UsherProcess) -> [String; 2] {
    [process.public.clone(), process.admin.clone()]
}

/// 5,000 requests of 3,000 users for 500 coupons on two processes, one of which is killed. The
/// first seed is `USHER_TEST_SEED`. `USHER_TEST_COUPON_RUNS` is the number of runs (2 if unset).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quota_is_exact_although_one_process_is_killed() {
    let seeds = std::env::var("USHER_TEST_COUPON_RUNS").map_or(2, |text| text.parse().unwrap());
    let first = crate::support::test_seed();
    for seed in first..first + seeds {
        println!("seed {seed}");
        run_seed(seed).await;
    }
    println!("{seeds} seeds from {first} on gave exactly 500");
}

async fn run_seed(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let stores = TestStores::new().await;
    let (victim, survivor) =
        (UsherProcess::start(&stores).await, UsherProcess::start(&stores).await);
    let (both, alone) = (
        ApiClient::new(vec![address(&victim), address(&survivor)]),
        ApiClient::new(vec![address(&survivor)]),
    );
    let mut definition = coupon(2_000, 0);
    definition["total_quantity"] = json!(500);
    alone.put("/admin/coupons/off", &definition).await.expect(200);
    for at in 0..2 {
        eventually("both instances know the coupon", || async {
            (both.for_instance(at).get("/v1/coupons/off").send().await.status == 200).then_some(())
        })
        .await;
    }
    let users: Vec<String> = (0..3_000).map(|_| new_user()).collect();
    let mut issues = BTreeMap::<String, BTreeSet<String>>::new();
    let mut victim = Some(victim);
    let (mut answered, mut lost) = (0, Vec::new());
    let struck = random.random_range(1..=450);
    // Every user sends a request in a random order, and two thousand requests are repeats.
    let mut order: Vec<usize> = (0..3_000).collect();
    order.extend((0..2_000).map(|_| random.random_range(0..3_000)));
    order.shuffle(&mut random);
    let asks = order.into_iter().map(|n| {
        let user = users[n].clone();
        let call = both.post("/v1/coupons/off/issues").user(&user);
        async move { (user, call.try_send().await.ok()) }
    });
    let mut asks = futures::stream::iter(asks).buffer_unordered(128);
    while let Some((user, answer)) = asks.next().await {
        answered += 1;
        if answered == struck
            && let Some(victim) = victim.take()
        {
            victim.kill().await;
        }
        match answer {
            Some(answer) if [200, 201].contains(&answer.status) => {
                issues
                    .entry(user)
                    .or_default()
                    .insert(answer.body["id"].as_str().expect("an id").into());
            }
            Some(answer) => drop(answer.problem(409, "sold_out")),
            None => lost.push(user),
        }
    }
    assert!(!lost.is_empty(), "seed {seed}: the kill came too late to hit anything");
    // Every user sends one more request: users whose response was lost get it now.
    let again = users.iter().map(|user| {
        let call = alone.post("/v1/coupons/off/issues").user(user);
        async move { (user.clone(), call.send().await) }
    });
    let mut again = futures::stream::iter(again).buffer_unordered(128);
    while let Some((user, answer)) = again.next().await {
        match answer.status {
            200 | 201 => {
                issues
                    .entry(user)
                    .or_default()
                    .insert(answer.body["id"].as_str().expect("an id").into());
            }
            _ => drop(answer.problem(409, "sold_out")),
        }
    }
    assert_eq!(issues.len(), 500, "seed {seed}");
    assert!(issues.values().all(|ids| ids.len() == 1), "seed {seed}: one issue each");
    stores.wait_until_idle().await;
    let rows: Vec<(uuid::Uuid, uuid::Uuid)> =
        sqlx::query_as("SELECT user_id, id FROM coupon_issues")
            .fetch_all(&stores.mysql)
            .await
            .expect("rows");
    let written: BTreeMap<_, _> =
        rows.iter().map(|(user, id)| (user.to_string(), id.to_string())).collect();
    let reported: BTreeMap<_, _> = issues
        .into_iter()
        .filter_map(|(user, ids)| Some((user, ids.into_iter().next()?)))
        .collect();
    assert_eq!((rows.len(), written), (500, reported), "seed {seed}");
    let key = stores.key(stores.partition_of("off"), "c:off:issues");
    assert_eq!(stores.redis().await.ask(&["HLEN", &key]).await.int(), 500, "seed {seed}");
}

/// Payments with coupons on a process that is killed three times.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn coupons_match_payments_although_the_process_is_killed() {
    const GUESTS: u32 = 120;
    let stores = TestStores::new().await;
    let mut process = UsherProcess::start(&stores).await;
    let api = ApiClient::new(vec![address(&process)]);
    api.put("/admin/queues/show", &fast_queue_settings()).await.expect(200);
    api.put("/admin/concerts/show", &concert_definition(GUESTS, 4_000)).await.expect(200);
    api.put("/admin/coupons/off", &coupon(1_500, 0)).await.expect(200);
    let payers = (1..=GUESTS).map(async |seat| {
        let guest = api.active_user(CONCERT).await;
        api.charge(&guest.user, 4_000).await;
        let issue = issue(&api, &guest.user).await;
        let reservation = api.hold_seats(&guest.token, SCHEDULE, &[seat]).await;
        let body = json!({"reservation_id": reservation, "coupon_issue_id": issue});
        (guest, body, new_key())
    });
    let mut rest = futures::future::join_all(payers).await;
    let mut unheard = 0;
    for answered in [3, 10, 20] {
        let api = ApiClient::new(vec![address(&process)]);
        let mut under_way: FuturesUnordered<_> = rest
            .iter()
            .map(|(guest, body, key)| {
                let call = api.post("/v1/payments").token(&guest.token).key(key).json(body);
                let key = key.clone();
                tokio::spawn(async move { (key, call.try_send().await.ok()) })
            })
            .collect();
        let mut heard = BTreeSet::new();
        let mut note =
            |answer: Option<Result<(String, Option<crate::support::ApiResponse>), _>>| {
                if let Some(Ok::<_, tokio::task::JoinError>((key, Some(answer)))) = answer {
                    assert_eq!(answer.expect(201)["discount"], 1_500);
                    heard.insert(key);
                }
            };
        for _ in 0..answered {
            note(under_way.next().await);
        }
        process.kill().await;
        while let Some(answer) = under_way.next().await {
            note(Some(answer));
        }
        rest.retain(|(_, _, key)| !heard.contains(key));
        // A few are never repeated: the sweep finishes them.
        unheard += rest.len() / 8;
        rest.truncate(rest.len() - rest.len() / 8);
        process = UsherProcess::start(&stores).await;
    }
    let api = ApiClient::new(vec![address(&process)]);
    for (guest, body, key) in &rest {
        let call = api.post("/v1/payments").token(&guest.token).key(key).json(body);
        assert_eq!(call.send().await.expect(201)["paid"], 2_500);
    }
    let used = audit(&stores).await;
    assert!(
        used >= i64::from(GUESTS) - i64::try_from(unheard).expect("few"),
        "{used} used, {unheard} not repeated"
    );
}

/// Claims on a process that is killed three times: paid exactly if they are marked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reward_is_paid_once_although_the_process_is_killed() {
    let stores = TestStores::new().await;
    let mut process = UsherProcess::start(&stores).await;
    let text = |hours| (chrono::Utc::now() + chrono::TimeDelta::hours(hours)).to_rfc3339();
    let reward = json!({"title": "Hi", "starts_at": text(-1), "ends_at": text(1), "active": true,
        "conditions": [],
        "reward": {"kind": "points", "amount": 70}});
    ApiClient::new(vec![address(&process)]).put("/admin/rewards/hi", &reward).await.expect(200);
    let users: Vec<String> = (0..300).map(|_| new_user()).collect();
    let mut granted = BTreeMap::<String, u32>::new();
    for answered in [10, 150, 400, 600] {
        let api = ApiClient::new(vec![address(&process)]);
        let mut under_way: FuturesUnordered<_> = (0..600)
            .map(|n| {
                let user = users[n % users.len()].clone();
                let call = api.post("/v1/rewards/hi/claims").user(&user);
                tokio::spawn(async move { (user, call.try_send().await.ok()) })
            })
            .collect();
        let mut seen = 0;
        while let Some(answer) = under_way.next().await {
            seen += 1;
            if seen == answered && answered < 600 {
                process.kill().await;
                process = UsherProcess::start(&stores).await;
            }
            let Ok((user, Some(answer))) = answer else { continue };
            match answer.status {
                201 => *granted.entry(user).or_default() += 1,
                409 => drop(answer.problem(409, "already_claimed")),
                _ => assert_eq!(answer.status, 503, "{}", answer.text),
            }
        }
    }
    assert!(granted.values().all(|times| *times == 1), "granted once at most");
    stores.audit().await;
    let count = async |query| stores.count(query).await;
    assert_eq!(count("SELECT COUNT(*) FROM reward_claims WHERE status = 'success'").await, 300);
    assert_eq!(
        count("SELECT COUNT(*) FROM wallet_entries WHERE kind = 'reward' AND amount = 70").await,
        300
    );
    assert_eq!(count("SELECT COUNT(*) FROM wallets WHERE balance = 70").await, 300);
}
