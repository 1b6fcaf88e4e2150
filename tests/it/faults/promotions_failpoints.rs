//! Coupons and rewards on a process that dies at a fail point: before a script, after it and before
//! the response, before the commit of the writer, after it, and before the trim. Each point has its
//! own stores. The client repeats the request at another process, and every effect must exist once.

use futures::StreamExt;
use serde_json::{Value, json};

use crate::coupons::payments::{audit, coupon, issue};
use crate::support::world::{concert_definition, fast_queue_settings};
use crate::support::{
    ApiClient, ApiResponse, CONCERT, SCHEDULE, TestStores, UsherProcess, new_key, new_user,
};

/// Fail points that are tested at the same time.
const CONCURRENT_POINTS: usize = 3;
const POINTS: i64 = 70;

/// A fail point, and which stores have the effect when the process has died there.
#[derive(Clone, Copy)]
struct CrashPoint {
    point: &'static str,
    /// The script has run.
    done: bool,
    /// The transaction of the writer is committed.
    committed: bool,
}

const fn edge(point: &'static str, done: bool, committed: bool) -> CrashPoint {
    CrashPoint { point, done, committed }
}

const REWARD_EDGES: [CrashPoint; 6] = [
    edge("rewards/claim.before", false, false),
    edge("rewards/claim.after", true, false),
    edge("writer.before_transaction", true, false),
    edge("writer.before_commit", true, false),
    edge("writer.after_commit", true, true),
    edge("writer.after_trim", true, true),
];

const ISSUE_EDGES: [CrashPoint; 6] = [
    edge("coupons/issue.before", false, false),
    edge("coupons/issue.after", true, false),
    edge("writer.before_transaction", true, false),
    edge("writer.before_commit", true, false),
    edge("writer.after_commit", true, true),
    edge("writer.after_trim", true, true),
];

/// Runs the test at all fail points.
async fn each<T, F: Future<Output = ()>>(
    edges: impl IntoIterator<Item = T>,
    walk: impl Fn(T) -> F,
) {
    futures::stream::iter(edges)
        .map(walk)
        .buffer_unordered(CONCURRENT_POINTS)
        .collect::<()>()
        .await;
}

/// Entries of all outboxes that MySQL does not have.
async fn unwritten(stores: &TestStores) -> i64 {
    let mut entries = 0;
    for partition in 0..crate::support::servers::PARTITIONS {
        entries += stores.backlog(&mut stores.redis().await, partition).await;
    }
    entries
}

/// Checks that the process died at the right point: its effect is nowhere, in the outbox, or in
/// MySQL.
async fn check_left_behind(edge: CrashPoint, stores: &TestStores, rows: i64) {
    // Right after a script, the writer may have finished before the process died.
    if edge.done && !edge.point.starts_with("writer") {
        return;
    }
    assert_eq!(rows, i64::from(edge.committed), "{}", edge.point);
    let left = edge.done && edge.point != "writer.after_trim";
    assert_eq!(unwritten(stores).await, i64::from(left), "{}", edge.point);
}

/// Runs a call on a process that dies at the fail point. Returns the response, if there was one.
async fn die_at(
    edge: CrashPoint,
    stores: &TestStores,
    set_up: impl AsyncFn(&ApiClient),
    call: impl AsyncFn(&ApiClient) -> Option<ApiResponse>,
) -> Option<ApiResponse> {
    let victim = UsherProcess::start_failing(stores, &format!("{}=return(kill)", edge.point)).await;
    let api = victim.api();
    set_up(&api).await;
    let answer = call(&api).await;
    victim.wait_until_killed().await;
    assert!(
        answer.is_none() || edge.point.starts_with("writer"),
        "{}: the process still answered",
        edge.point
    );
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reward_is_paid_once_wherever_the_process_dies() {
    each(REWARD_EDGES, async |edge| {
        let (stores, user, other) = (TestStores::new().await, new_user(), new_user());
        let time = |hours| (chrono::Utc::now() + chrono::TimeDelta::hours(hours)).to_rfc3339();
        let reward = json!({"title": "Hi", "starts_at": time(-1), "ends_at": time(1),
            "active": true, "conditions": [],
            "reward": {"kind": "points", "amount": POINTS}});
        let set_up =
            async |api: &ApiClient| drop(api.put("/admin/rewards/hi", &reward).await.expect(200));
        let claim = async |api: &ApiClient, user: &str| {
            api.post("/v1/rewards/hi/claims").user(user).try_send().await.ok()
        };
        let first = die_at(edge, &stores, set_up, async |api| claim(api, &user).await).await;
        let rows = stores.count("SELECT COUNT(*) FROM reward_claims").await;
        let credits = stores
            .count(
                "SELECT COUNT(*) FROM wallet_entries WHERE kind = \
             'reward'",
            )
            .await;
        assert_eq!(rows, credits, "{}", edge.point);
        check_left_behind(edge, &stores, rows).await;

        let process = UsherProcess::start(&stores).await;
        let api = process.api();
        let again = claim(&api, &user).await.expect("an answer");
        if edge.done {
            again.problem(409, "already_claimed");
        } else {
            again.expect(201);
        }
        // A user whose response was lost sees the success in the history.
        let history = api.get("/v1/rewards/hi/claims/mine").user(&user).send().await.expect(200);
        let lines: Vec<&Value> =
            history["items"].as_array().unwrap().iter().map(|line| &line["status"]).collect();
        assert_eq!(
            lines.iter().filter(|status| **status == "success").count(),
            1,
            "{}: \
             {history}",
            edge.point
        );
        assert_eq!(lines.len(), 1 + usize::from(edge.done));
        assert!(first.is_none_or(|first| first.status == 201), "{}", edge.point);
        assert_eq!(api.balance(&user).await, POINTS);
        claim(&api, &other).await.expect("an answer").expect(201);
        stores.audit().await;
        let count = async |query| stores.count(query).await;
        assert_eq!(count("SELECT COUNT(*) FROM reward_claims WHERE status = 'success'").await, 2);
        assert_eq!(
            count(
                "SELECT COUNT(*) FROM wallet_entries WHERE kind = 'reward' AND amount = \
             70"
            )
            .await,
            2
        );
        assert_eq!(count("SELECT COUNT(*) FROM wallets WHERE balance = 70").await, 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn coupon_is_issued_once_wherever_the_process_dies() {
    each(ISSUE_EDGES, async |edge| {
        let (stores, user) = (TestStores::new().await, new_user());
        let mut two = coupon(1_000, 0);
        two["total_quantity"] = json!(2);
        let set_up =
            async |api: &ApiClient| drop(api.put("/admin/coupons/off", &two).await.expect(200));
        let ask = async |api: &ApiClient, user: &str| {
            api.post("/v1/coupons/off/issues").user(user).try_send().await.ok()
        };
        let first = die_at(edge, &stores, set_up, async |api| ask(api, &user).await).await;
        let rows = stores.count("SELECT COUNT(*) FROM coupon_issues").await;
        check_left_behind(edge, &stores, rows).await;

        let process = UsherProcess::start(&stores).await;
        let api = process.api();
        let again =
            ask(&api, &user).await.expect("an answer").expect(if edge.done { 200 } else { 201 });
        if let Some(first) = first {
            assert_eq!(first.expect(201), again, "{}", edge.point);
        }
        ask(&api, &new_user()).await.expect("an answer").expect(201);
        ask(&api, &new_user()).await.expect("an answer").problem(409, "sold_out");
        assert_eq!(ask(&api, &user).await.expect("an answer").expect(200), again);
        stores.wait_until_idle().await;
        assert_eq!(stores.count("SELECT COUNT(*) FROM coupon_issues").await, 2);
        let key = stores.key(stores.partition_of("off"), "c:off:issues");
        assert_eq!(stores.redis().await.ask(&["HLEN", &key]).await.int(), 2);
    })
    .await;
}

/// The steps of a payment that is confirmed, or of one that the wallet declines, to their end.
const CONFIRMED_STEPS: [&str; 6] = [
    "payment/begin",
    "coupons/reserve",
    "wallet/debit",
    "payment/confirm",
    "coupons/redeem",
    "payment/finish_redemption",
];
const DECLINED_STEPS: [&str; 7] = [
    "payment/begin",
    "coupons/reserve",
    "wallet/debit",
    "payment/void",
    "wallet/refund",
    "coupons/return_issue",
    "payment/finish_void",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn coupon_is_used_once_or_returned_wherever_the_process_dies() {
    let walks = [(&CONFIRMED_STEPS[..], 4_000), (&DECLINED_STEPS[..], 100)];
    let edges = walks.into_iter().flat_map(|(steps, money)| {
        steps.iter().flat_map(move |step| ["before", "after"].map(|side| (*step, side, money)))
    });
    each(edges, async |(step, side, money)| {
        let point = format!("{step}.{side}");
        let stores = TestStores::new().await;
        let process = UsherProcess::start(&stores).await;
        let api = process.api();
        api.put("/admin/queues/show", &fast_queue_settings()).await.expect(200);
        api.put("/admin/concerts/show", &concert_definition(4, 4_000)).await.expect(200);
        api.put("/admin/coupons/off", &coupon(1_500, 0)).await.expect(200);
        let guest = api.active_user(CONCERT).await;
        api.charge(&guest.user, money).await;
        let issue = issue(&api, &guest.user).await;
        let reservation = api.hold_seats(&guest.token, SCHEDULE, &[1]).await;
        let body = json!({"reservation_id": reservation, "coupon_issue_id": issue});
        let pay = async |api: &ApiClient, key: &str| {
            api.post("/v1/payments").token(&guest.token).key(key).json(&body).try_send().await.ok()
        };
        let (victim, key) = (
            UsherProcess::start_failing(&stores, &format!("{point}=return(kill)")).await,
            new_key(),
        );
        assert!(pay(&victim.api(), &key).await.is_none(), "{point}: the process still answered");
        victim.wait_until_killed().await;
        let again = pay(&api, &key).await.expect("an answer");
        if money < 2_500 {
            again.problem(402, "insufficient_balance");
            // The coupon is unused again, and pays with the next attempt.
            api.charge(&guest.user, 4_000).await;
            assert_eq!(
                pay(&api, &new_key()).await.expect("an answer").expect(201)["discount"],
                1_500,
                "{point}"
            );
        } else {
            assert_eq!(again.expect(201)["paid"], 2_500, "{point}");
        }
        assert_eq!(audit(&stores).await, 1, "{point}");
    })
    .await;
}
