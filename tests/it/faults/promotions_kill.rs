//! kill -9 while coupons and rewards are given out.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use serde_json::json;

use crate::coupons::payments::{audit, coupon, issue};
use crate::support::world::{fast_queue, show};
use crate::support::{Api, NIGHT, Process, SHOW, Stores, eventually, new_key, new_user};

fn address(process: &Process) -> [String; 2] {
    [process.public.clone(), process.admin.clone()]
}

/// 5,000 requests of 3,000 users for 500 coupons on two processes, one of which is killed on the way.
/// The first seed is `USHER_TEST_SEED`; `USHER_COUPON_RUNS` says how many runs follow (2 if unset).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_gets_exactly_the_quota_though_one_process_is_killed() {
    let seeds = std::env::var("USHER_COUPON_RUNS").map_or(2, |text| text.parse().unwrap());
    let first = crate::support::test_seed();
    for seed in first..first + seeds {
        println!("seed {seed}");
        crowd(seed).await;
    }
    println!("{seeds} seeds from {first} on gave exactly 500");
}

async fn crowd(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let stores = Stores::new().await;
    let (victim, survivor) = (Process::start(&stores).await, Process::start(&stores).await);
    let (both, alone) =
        (Api::new(vec![address(&victim), address(&survivor)]), Api::new(vec![address(&survivor)]));
    let mut definition = coupon(2_000, 0);
    definition["total_quantity"] = json!(500);
    alone.put("/admin/coupons/off", &definition).await.expect(200);
    for at in 0..2 {
        eventually("both know the coupon", || async {
            (both.only(at).get("/v1/coupons/off").send().await.status == 200).then_some(())
        })
        .await;
    }
    let users: Vec<String> = (0..3_000).map(|_| new_user()).collect();
    let mut issues = BTreeMap::<String, BTreeSet<String>>::new();
    let mut victim = Some(victim);
    let (mut answered, mut lost) = (0, Vec::new());
    let struck = random.random_range(1..=450);
    // Everybody asks, in some order, and two thousand times somebody asks again.
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
    // Everybody asks once more: whose answer was lost hears it now.
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
    stores.at_rest().await;
    let rows: Vec<(uuid::Uuid, uuid::Uuid)> =
        sqlx::query_as("SELECT user_id, id FROM coupon_issues")
            .fetch_all(&stores.mysql)
            .await
            .expect("rows");
    let written: BTreeMap<_, _> =
        rows.iter().map(|(user, id)| (user.to_string(), id.to_string())).collect();
    let told: BTreeMap<_, _> = issues
        .into_iter()
        .filter_map(|(user, ids)| Some((user, ids.into_iter().next()?)))
        .collect();
    assert_eq!((rows.len(), written), (500, told), "seed {seed}");
    let key = stores.key(stores.partition_of("off"), "c:off:issues");
    assert_eq!(stores.redis().await.ask(&["HLEN", &key]).await.int(), 500, "seed {seed}");
}

/// Payments with coupons, on a process that is killed three times.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coupon_is_used_exactly_where_it_was_paid_with_though_the_process_is_killed() {
    const GUESTS: u32 = 120;
    let stores = Stores::new().await;
    let mut process = Process::start(&stores).await;
    let api = Api::new(vec![address(&process)]);
    api.put("/admin/queues/show", &fast_queue()).await.expect(200);
    api.put("/admin/concerts/show", &show(GUESTS, 4_000)).await.expect(200);
    api.put("/admin/coupons/off", &coupon(1_500, 0)).await.expect(200);
    let payers = (1..=GUESTS).map(async |seat| {
        let guest = api.active_guest(SHOW).await;
        api.charge(&guest.user, 4_000).await;
        let issue = issue(&api, &guest.user).await;
        let reservation = api.held(&guest.token, NIGHT, &[seat]).await;
        let body = json!({"reservation_id": reservation, "coupon_issue_id": issue});
        (guest, body, new_key())
    });
    let mut rest = futures::future::join_all(payers).await;
    let mut unheard = 0;
    for answered in [3, 10, 20] {
        let api = Api::new(vec![address(&process)]);
        let mut under_way: FuturesUnordered<_> = rest
            .iter()
            .map(|(guest, body, key)| {
                let call = api.post("/v1/payments").token(&guest.token).key(key).json(body);
                let key = key.clone();
                tokio::spawn(async move { (key, call.try_send().await.ok()) })
            })
            .collect();
        let mut heard = BTreeSet::new();
        let mut note = |answer: Option<Result<(String, Option<crate::support::Answer>), _>>| {
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
        // A few never ask again: the sweep finishes theirs.
        unheard += rest.len() / 8;
        rest.truncate(rest.len() - rest.len() / 8);
        process = Process::start(&stores).await;
    }
    let api = Api::new(vec![address(&process)]);
    for (guest, body, key) in &rest {
        let call = api.post("/v1/payments").token(&guest.token).key(key).json(body);
        assert_eq!(call.send().await.expect(201)["paid"], 2_500);
    }
    let used = audit(&stores).await;
    assert!(
        used >= i64::from(GUESTS) - i64::try_from(unheard).expect("few"),
        "{used}, {unheard} never asked again"
    );
}

/// Claims on a process that is killed three times: paid once where they were marked, and marked where they were paid.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reward_is_paid_exactly_once_though_the_process_is_killed() {
    let stores = Stores::new().await;
    let mut process = Process::start(&stores).await;
    let text = |hours| (chrono::Utc::now() + chrono::TimeDelta::hours(hours)).to_rfc3339();
    let reward = json!({"title": "Hi", "starts_at": text(-1), "ends_at": text(1), "active": true, "conditions": [],
        "reward": {"kind": "points", "amount": 70}});
    Api::new(vec![address(&process)]).put("/admin/rewards/hi", &reward).await.expect(200);
    let users: Vec<String> = (0..300).map(|_| new_user()).collect();
    let mut granted = BTreeMap::<String, u32>::new();
    for answered in [10, 150, 400, 600] {
        let api = Api::new(vec![address(&process)]);
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
                process = Process::start(&stores).await;
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
