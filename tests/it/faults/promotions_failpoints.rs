//! Coupons and rewards on a process that dies at a named edge: before a script, after it and before the answer, before the writer's commit, after it and
//! before the trim. Each edge has stores of its own; the client asks again on another process, and everything is there once.

use futures::StreamExt;
use serde_json::{Value, json};

use crate::coupons::payments::{audit, coupon, issue};
use crate::support::world::{fast_queue, show};
use crate::support::{Answer, Api, NIGHT, Process, SHOW, Stores, new_key, new_user};

/// Edges that are walked side by side.
const AT_ONCE: usize = 3;
const POINTS: i64 = 70;

/// What stands where when the process has died at an edge.
#[derive(Clone, Copy)]
struct Edge {
    point: &'static str,
    /// The script has run.
    done: bool,
    /// The transaction of the writer is committed.
    committed: bool,
}

const fn edge(point: &'static str, done: bool, committed: bool) -> Edge {
    Edge { point, done, committed }
}

const REWARD_EDGES: [Edge; 6] = [
    edge("rewards/claim.before", false, false),
    edge("rewards/claim.after", true, false),
    edge("writer.before_transaction", true, false),
    edge("writer.before_commit", true, false),
    edge("writer.after_commit", true, true),
    edge("writer.after_trim", true, true),
];

const ISSUE_EDGES: [Edge; 6] = [
    edge("coupons/issue.before", false, false),
    edge("coupons/issue.after", true, false),
    edge("writer.before_transaction", true, false),
    edge("writer.before_commit", true, false),
    edge("writer.after_commit", true, true),
    edge("writer.after_trim", true, true),
];

/// Walks all edges.
async fn each<T, F: Future<Output = ()>>(
    edges: impl IntoIterator<Item = T>,
    walk: impl Fn(T) -> F,
) {
    futures::stream::iter(edges).map(walk).buffer_unordered(AT_ONCE).collect::<()>().await;
}

/// Entries of all outboxes.
async fn unwritten(stores: &Stores) -> i64 {
    let mut entries = 0;
    for partition in 0..crate::support::servers::PARTITIONS {
        let outbox = stores.key(partition, "outbox");
        entries += stores.redis().await.ask(&["XLEN", &outbox]).await.int();
    }
    entries
}

/// That the process died where it should: what it did stands nowhere, in the outbox, or in MySQL.
async fn check_left_behind(edge: Edge, stores: &Stores, rows: i64) {
    // Right after a script the writer may have been faster than the end.
    if edge.done && !edge.point.starts_with("writer") {
        return;
    }
    assert_eq!(rows, i64::from(edge.committed), "{}", edge.point);
    let left = edge.done && edge.point != "writer.after_trim";
    assert_eq!(unwritten(stores).await, i64::from(left), "{}", edge.point);
}

/// A process that dies at the edge when the call comes, on stores that hold what it left. Gives the answer, if there was one.
async fn die_at(
    edge: Edge,
    stores: &Stores,
    set_up: impl AsyncFn(&Api),
    call: impl AsyncFn(&Api) -> Option<Answer>,
) -> Option<Answer> {
    let victim = Process::start_failing(stores, &format!("{}=return(kill)", edge.point)).await;
    let api = victim.api();
    set_up(&api).await;
    let answer = call(&api).await;
    victim.died().await;
    assert!(
        answer.is_none() || edge.point.starts_with("writer"),
        "{}: nobody was left to answer",
        edge.point
    );
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reward_is_paid_once_wherever_the_process_dies() {
    each(REWARD_EDGES, async |edge| {
        let (stores, user, other) = (Stores::new().await, new_user(), new_user());
        let time = |hours| (chrono::Utc::now() + chrono::TimeDelta::hours(hours)).to_rfc3339();
        let reward = json!({"title": "Hi", "starts_at": time(-1), "ends_at": time(1), "active": true, "conditions": [],
            "reward": {"kind": "points", "amount": POINTS}});
        let set_up = async |api: &Api| drop(api.put("/admin/rewards/hi", &reward).await.expect(200));
        let claim = async |api: &Api, user: &str| api.post("/v1/rewards/hi/claims").user(user).try_send().await.ok();
        let first = die_at(edge, &stores, set_up, async |api| claim(api, &user).await).await;
        let rows = stores.count("SELECT COUNT(*) FROM reward_claims").await;
        let credits = stores.count("SELECT COUNT(*) FROM wallet_entries WHERE kind = 'reward'").await;
        assert_eq!(rows, credits, "{}", edge.point);
        check_left_behind(edge, &stores, rows).await;

        let process = Process::start(&stores).await;
        let api = process.api();
        let again = claim(&api, &user).await.expect("an answer");
        if edge.done {
            again.problem(409, "already_claimed");
        } else {
            again.expect(201);
        }
        // The one whose answer was lost reads in the history that it went well.
        let history = api.get("/v1/rewards/hi/claims/mine").user(&user).send().await.expect(200);
        let lines: Vec<&Value> = history["items"].as_array().unwrap().iter().map(|line| &line["status"]).collect();
        assert_eq!(lines.iter().filter(|status| **status == "success").count(), 1, "{}: {history}", edge.point);
        assert_eq!(lines.len(), 1 + usize::from(edge.done));
        assert!(first.is_none_or(|first| first.status == 201), "{}", edge.point);
        assert_eq!(api.balance(&user).await, POINTS);
        claim(&api, &other).await.expect("an answer").expect(201);
        stores.audit().await;
        let count = async |query| stores.count(query).await;
        assert_eq!(count("SELECT COUNT(*) FROM reward_claims WHERE status = 'success'").await, 2);
        assert_eq!(count("SELECT COUNT(*) FROM wallet_entries WHERE kind = 'reward' AND amount = 70").await, 2);
        assert_eq!(count("SELECT COUNT(*) FROM wallets WHERE balance = 70").await, 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coupon_is_issued_once_wherever_the_process_dies() {
    each(ISSUE_EDGES, async |edge| {
        let (stores, user) = (Stores::new().await, new_user());
        let mut two = coupon(1_000, 0);
        two["total_quantity"] = json!(2);
        let set_up = async |api: &Api| drop(api.put("/admin/coupons/off", &two).await.expect(200));
        let ask = async |api: &Api, user: &str| {
            api.post("/v1/coupons/off/issues").user(user).try_send().await.ok()
        };
        let first = die_at(edge, &stores, set_up, async |api| ask(api, &user).await).await;
        let rows = stores.count("SELECT COUNT(*) FROM coupon_issues").await;
        check_left_behind(edge, &stores, rows).await;

        let process = Process::start(&stores).await;
        let api = process.api();
        let again =
            ask(&api, &user).await.expect("an answer").expect(if edge.done { 200 } else { 201 });
        if let Some(first) = first {
            assert_eq!(first.expect(201), again, "{}", edge.point);
        }
        ask(&api, &new_user()).await.expect("an answer").expect(201);
        ask(&api, &new_user()).await.expect("an answer").problem(409, "sold_out");
        assert_eq!(ask(&api, &user).await.expect("an answer").expect(200), again);
        stores.at_rest().await;
        assert_eq!(stores.count("SELECT COUNT(*) FROM coupon_issues").await, 2);
        let key = stores.key(stores.partition_of("off"), "c:off:issues");
        assert_eq!(stores.redis().await.ask(&["HLEN", &key]).await.int(), 2);
    })
    .await;
}

/// The steps of a payment that is confirmed, or of one that the wallet refuses, up to its end.
const FORTH: [&str; 6] = [
    "payment/begin",
    "coupons/reserve",
    "wallet/debit",
    "payment/confirm",
    "coupons/redeem",
    "payment/finish_redemption",
];
const BACK: [&str; 7] = [
    "payment/begin",
    "coupons/reserve",
    "wallet/debit",
    "payment/void",
    "wallet/refund",
    "coupons/return_issue",
    "payment/finish_void",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coupon_is_used_once_or_given_back_wherever_the_process_dies() {
    let walks = [(&FORTH[..], 4_000), (&BACK[..], 100)];
    let edges = walks.into_iter().flat_map(|(steps, money)| {
        steps.iter().flat_map(move |step| ["before", "after"].map(|side| (*step, side, money)))
    });
    each(edges, async |(step, side, money)| {
        let point = format!("{step}.{side}");
        let stores = Stores::new().await;
        let process = Process::start(&stores).await;
        let api = process.api();
        api.put("/admin/queues/show", &fast_queue()).await.expect(200);
        api.put("/admin/concerts/show", &show(4, 4_000)).await.expect(200);
        api.put("/admin/coupons/off", &coupon(1_500, 0)).await.expect(200);
        let guest = api.active_guest(SHOW).await;
        api.charge(&guest.user, money).await;
        let issue = issue(&api, &guest.user).await;
        let reservation = api.held(&guest.token, NIGHT, &[1]).await;
        let body = json!({"reservation_id": reservation, "coupon_issue_id": issue});
        let pay = async |api: &Api, key: &str| {
            api.post("/v1/payments").token(&guest.token).key(key).json(&body).try_send().await.ok()
        };
        let (victim, key) =
            (Process::start_failing(&stores, &format!("{point}=return(kill)")).await, new_key());
        assert!(pay(&victim.api(), &key).await.is_none(), "{point}: nobody was left to answer");
        victim.died().await;
        let again = pay(&api, &key).await.expect("an answer");
        if money < 2_500 {
            again.problem(402, "insufficient_balance");
            // The coupon is the user's again, and pays with the next attempt.
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
