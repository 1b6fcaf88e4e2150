//! Backpressure: when the stores cannot keep up, new work is refused before paid work is at risk,
//! and service resumes automatically.

use std::sync::atomic::{AtomicI64, Ordering};

use futures::future::join_all;
use reqwest::Method;
use serde_json::json;
use usher::app::UsherApp;
use usher::config::UsherConfig;
use usher::config::args::ServeArgs;
use usher::dev::{PrivateRedis, TempDir};
use usher::shutdown::ShutdownSignal;

use crate::support::servers::PARTITIONS;
use crate::support::{
    ApiClient, CONCERT, SCHEDULE, StoreRelays, TestInstance, TestStores, TestWorld, UsherProcess,
    eventually, new_key, new_user, signal,
};

fn text(number: u32) -> Option<String> {
    Some(number.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_mysql_new_work_is_refused_and_holds_can_be_paid() {
    let stores = TestStores::new().await;
    let relays = StoreRelays::before(&stores).await;
    let mut args = relays.args(&stores);
    (args.stores.backlog_warn, args.stores.backlog_limit) = (text(20), text(100));
    let world = TestWorld::with_args(stores, &[args.clone(), args]).await;
    world.put_show(20, 1_000).await;
    world
        .put_queue(
            "slow",
            json!({"promote_per_interval": 1, "interval_ms": 1_000, "max_active": 1}),
        )
        .await;
    let api = &world.api;
    let (payer, canceller, holder) = (
        api.active_user(CONCERT).await,
        api.active_user(CONCERT).await,
        api.active_user(CONCERT).await,
    );
    for guest in [&payer, &canceller] {
        api.charge(&guest.user, 1_000).await;
    }
    let held = api.hold_seats(&payer.token, SCHEDULE, &[1]).await;
    let bought = api.hold_seats(&canceller.token, SCHEDULE, &[2]).await;
    api.pay(&canceller.token, &bought, &new_key()).await.expect(201);
    let coupon = crate::coupons::payments::coupon(1, 0);
    api.put("/admin/coupons/off", &coupon).await.expect(200);
    let reward = json!({"title": "R", "starts_at": "2020-01-01T00:00:00Z",
        "ends_at": "2100-01-01T00:00:00Z", "reward": {"kind": "points", "amount": 1}});
    api.put("/admin/rewards/none", &reward).await.expect(200);
    let (active, waiting) = (api.active_user("slow").await, api.join_new_user("slow").await);
    world.stores.wait_until_idle().await;

    relays.mysql.down();
    let fill = async |entries: u32| {
        for _ in 0..entries {
            api.charge(&new_user(), 10).await;
        }
    };
    let mut released = String::new();
    // Halfway between the marks: joins are refused, and active users may hold.
    fill(70).await;
    for at in 0..2 {
        let api = api.for_instance(at);
        eventually("joins are refused", || async {
            // A repeated join of an active user is answered until then, because it adds nothing to
            // the backlog.
            api.join(CONCERT, &holder.user).await.as_problem(503, "overloaded").ok()
        })
        .await;
        released = api.hold_seats(&holder.token, SCHEDULE, &[3 + u32::try_from(at).unwrap()]).await;
    }
    // At the limit everything is refused but payments, releases, cancellations and refunds.
    let filled = AtomicI64::new(70);
    for at in 0..2 {
        let api = api.for_instance(at);
        eventually("charges are refused", || async {
            let charged = api.charge_with_key(&new_user(), 10, &new_key()).await;
            if charged.status == 201 {
                filled.fetch_add(1, Ordering::Relaxed);
                return None;
            }
            Some(charged.problem(503, "overloaded"))
        })
        .await;
        eventually("holds are refused", || async {
            // A seat that is already taken.
            api.hold(&holder.token, SCHEDULE, &[1]).await.as_problem(503, "overloaded").ok()
        })
        .await;
        let best = json!({"schedule_id": SCHEDULE, "quantity": 1});
        let best = api.post("/v1/reservations/best").token(&holder.token).json(&best).send().await;
        best.problem(503, "overloaded");
        let user = &holder.user;
        let spend = api.post("/v1/wallet/uses").user(user).key(&new_key());
        spend.json(&json!({"amount": 1})).send().await.problem(503, "overloaded");
        for path in ["/v1/coupons/off/issues", "/v1/rewards/none/claims"] {
            api.post(path).user(user).send().await.problem(503, "overloaded");
        }
    }
    let release = api.delete(&format!("/v1/reservations/{released}")).token(&holder.token);
    release.send().await.expect(204);
    let path = format!("/v1/queues/{}/tokens/me", "slow");
    api.delete(&path).token(&active.token).send().await.expect(204);
    api.pay(&payer.token, &held, &new_key()).await.expect(201);
    let cancel = format!("/v1/reservations/{bought}/cancel");
    let cancelled =
        api.post(&cancel).user(&canceller.user).key(&new_key()).send().await.expect(200);
    assert_eq!(cancelled["status"], "cancelled");
    assert_eq!(api.balance(&canceller.user).await, 1_000);
    assert_eq!(api.poll("slow", &waiting.token).await.expect(200)["status"], "waiting");

    relays.mysql.up();
    api.wait_until_active("slow", &waiting).await;
    for at in 0..2 {
        let api = api.for_instance(at);
        eventually("joins are accepted again", || async {
            (api.join(CONCERT, &new_user()).await.status == 201).then_some(())
        })
        .await;
    }
    api.hold_seats(&holder.token, SCHEDULE, &[10]).await;
    let facts = world.stores.audit().await;
    assert_eq!((facts.payments_that_are("confirmed"), facts.payments_that_are("refunded")), (1, 1));
    assert_eq!(
        world.stores.count("SELECT COUNT(*) FROM wallet_entries WHERE amount = 10").await,
        filled.load(Ordering::Relaxed)
    );
}

/// Fills the memory of Redis, so that only scripts with `allow-oom` may write.
async fn fill_up(stores: &TestStores, full: bool) {
    let limit = if full { "1" } else { "0" };
    stores.redis().await.ask(&["CONFIG", "SET", "maxmemory", limit]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_redis_finishes_payments_and_starts_none() {
    let stores = TestStores::with_own_redis().await;
    let dir = TempDir::new("it-full").unwrap();
    let go = dir.path().join("go");
    let points = ["payment/confirm.before", "wallet/debit.before"]
        .map(|point| format!("{point}=1*return(until {})", go.display()));
    let processes = [
        UsherProcess::start_failing(&stores, &points[0]).await,
        UsherProcess::start_failing(&stores, &points[1]).await,
    ];
    let apis: Vec<ApiClient> = processes.iter().map(UsherProcess::api).collect();
    apis[0]
        .put("/admin/queues/show", &crate::support::world::fast_queue_settings())
        .await
        .expect(200);
    apis[0]
        .put("/admin/concerts/show", &crate::support::world::concert_definition(9, 1_000))
        .await
        .expect(200);
    let mut payments = Vec::new();
    for (at, api) in apis.iter().enumerate() {
        eventually("the concert is known", || async {
            (api.get("/v1/concerts/show").send().await.status == 200).then_some(())
        })
        .await;
        let guest = api.active_user(CONCERT).await;
        api.charge(&guest.user, 1_000).await;
        let reservation =
            api.hold_seats(&guest.token, SCHEDULE, &[u32::try_from(at).unwrap() + 1]).await;
        let (api, token) = (api.clone(), guest.token.clone());
        payments.push(tokio::spawn(async move { api.pay(&token, &reservation, &new_key()).await }));
    }
    processes[0].wait_for_failpoint("payment/confirm.before").await;
    processes[1].wait_for_failpoint("wallet/debit.before").await;
    let guest = apis[0].active_user(CONCERT).await;
    wait_until_outboxes_are_empty(&stores).await;
    fill_up(&stores, true).await;

    // New work is refused with the reason.
    let api = &apis[0];
    api.join(CONCERT, &new_user()).await.problem(503, "overloaded");
    api.hold(&guest.token, SCHEDULE, &[5]).await.problem(503, "overloaded");
    api.charge_with_key(&new_user(), 10, &new_key()).await.problem(503, "overloaded");
    assert_eq!(api.balance(&guest.user).await, 0, "reads are answered");

    // One payment is confirmed. The other cannot be debited, and the sweep voids it: void, refund
    // and the end of the void need no memory.
    std::fs::write(&go, "").unwrap();
    let mut payments = join_all(payments).await.into_iter().map(Result::unwrap);
    payments.next().unwrap().expect(201);
    let turned_back = payments.next().unwrap();
    assert!([202, 503].contains(&turned_back.status), "{turned_back:?}");
    eventually("the other payment is voided", || async {
        let voided = "SELECT COUNT(*) FROM payments WHERE status = 'voided'";
        (stores.count(voided).await == 1).then_some(())
    })
    .await;
    fill_up(&stores, false).await;
    eventually("charges are accepted again", || async {
        (api.charge_with_key(&guest.user, 10, &new_key()).await.status == 201).then_some(())
    })
    .await;
    let facts = stores.audit().await;
    assert_eq!((facts.payments_that_are("confirmed"), facts.sold.len()), (1, 1));
}

/// Refused claims alone must not fill Redis so far that a held seat can't be paid.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_limit_keeps_room_for_payments() {
    let world = TestWorld::on(TestStores::with_own_redis().await, 1).await;
    world.put_show(9, 1_000).await;
    let api = &world.api;
    let reward = json!({"title": "R", "starts_at": "2020-01-01T00:00:00Z", "ends_at":
        "2100-01-01T00:00:00Z", "conditions": [{"fact": "vip", "op": "==", "value": 1}],
        "reward": {"kind": "points", "amount": 1}});
    api.put("/admin/rewards/vip", &reward).await.expect(200);
    let (payer, canceller) = (api.active_user(CONCERT).await, api.active_user(CONCERT).await);
    for guest in [&payer, &canceller] {
        api.charge(&guest.user, 1_000).await;
    }
    let held = api.hold_seats(&payer.token, SCHEDULE, &[1]).await;
    let released = api.hold_seats(&payer.token, SCHEDULE, &[2]).await;
    let bought = api.hold_seats(&canceller.token, SCHEDULE, &[3]).await;
    api.pay(&canceller.token, &bought, &new_key()).await.expect(201);

    let mut redis = world.stores.redis().await;
    let info = redis.ask(&["INFO", "memory"]).await.text();
    let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
    let limit = used.trim().parse::<u64>().unwrap() * 105 / 100;
    redis.ask(&["CONFIG", "SET", "maxmemory", &limit.to_string()]).await;
    let claim = || api.post("/v1/rewards/vip/claims").user(&payer.user).send();
    eventually("claims are refused", || async { claim().await.as_problem(503, "overloaded").ok() })
        .await;
    api.charge_with_key(&new_user(), 10, &new_key()).await.problem(503, "overloaded");
    let before = sequences(&world.stores).await;
    // An id that is not a UUID would be recorded in the outbox.
    let stranger = format!("stranger-{}", new_user());
    api.charge_with_key(&stranger, 10, &new_key()).await.problem(503, "overloaded");
    assert_eq!(sequences(&world.stores).await, before);
    for method in [Method::PUT, Method::PATCH] {
        let call = api.admin_call(method, &format!("/admin/users/{}/facts", payer.user));
        call.json(&json!({"level": 1})).send().await.problem(503, "overloaded");
    }
    api.delete(&format!("/v1/reservations/{released}"))
        .token(&payer.token)
        .send()
        .await
        .expect(204);
    api.pay(&payer.token, &held, &new_key()).await.expect(201);
    let cancel = api.post(&format!("/v1/reservations/{bought}/cancel"));
    cancel.user(&canceller.user).key(&new_key()).send().await.expect(200);
    assert_eq!(api.balance(&canceller.user).await, 1_000);

    fill_up(&world.stores, false).await;
    eventually("claims are decided again", || async {
        claim().await.as_problem(403, "condition_not_met").ok()
    })
    .await;
    world.stores.audit().await;
}

async fn sequences(stores: &TestStores) -> Vec<String> {
    let mut redis = stores.redis().await;
    let mut all = Vec::new();
    for partition in 0..PARTITIONS {
        all.push(format!("{:?}", redis.ask(&["GET", &stores.key(partition, "seq")]).await));
    }
    all
}

async fn wait_until_outboxes_are_empty(stores: &TestStores) {
    eventually("the outboxes are empty", || async {
        let mut redis = stores.redis().await;
        for partition in 0..PARTITIONS {
            if stores.backlog(&mut redis, partition).await > 0 {
                return None;
            }
        }
        Some(())
    })
    .await;
}

/// The error with which an instance refuses to start, if it does.
async fn refusal(args: &ServeArgs) -> Option<String> {
    UsherApp::build(UsherConfig::new(args).unwrap(), ShutdownSignal::new())
        .await
        .err()
        .map(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn volatile_redis_is_refused_unless_allowed() {
    let stores = TestStores::with_own_redis().await;
    let mut redis = stores.redis().await;
    let args = stores.args();
    assert_eq!(refusal(&args).await, None);
    for (setting, bad, good, said) in [
        ("maxmemory-policy", "allkeys-lru", "noeviction", "maxmemory-policy is allkeys-lru"),
        ("appendonly", "no", "yes", "appendonly is off"),
    ] {
        redis.ask(&["CONFIG", "SET", setting, bad]).await;
        let refused = refusal(&args).await.unwrap();
        assert!(refused.contains(said) && refused.contains("USHER_REDIS_MAY_FORGET"), "{refused}");
        let mut allowed = args.clone();
        allowed.stores.redis_may_forget = Some("true".into());
        assert_eq!(refusal(&allowed).await, None, "{setting}");
        redis.ask(&["CONFIG", "SET", setting, good]).await;
    }
    let mut aof = args.clone();
    aof.stores.redis_wait_aof = Some("true".into());
    let knows = redis.ask(&["COMMAND", "INFO", "WAITAOF"]).await.list();
    let lacks = knows == [crate::support::resp::RespValue::Nil];
    assert_eq!(refusal(&aof).await.is_some_and(|why| why.contains("USHER_REDIS_WAIT_AOF")), lacks);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unreplicated_write_is_neither_confirmed_nor_persisted() {
    let stores = TestStores::with_own_redis().await;
    let dir = TempDir::new("it-replica").unwrap();
    let replica = PrivateRedis::start(dir.path()).await.unwrap();
    let port = stores.redis_port.to_string();
    let mut on_replica = crate::support::resp::RespClient::connect(replica.port()).await;
    on_replica.ask(&["REPLICAOF", "127.0.0.1", &port]).await;
    eventually("the replica follows", || async {
        let mut redis = stores.redis().await;
        let info = redis.ask(&["INFO", "replication"]).await.text();
        info.contains("state=online").then_some(())
    })
    .await;
    let mut args = stores.args();
    args.stores.redis_wait_replicas = text(1);
    let instance = TestInstance::start_with(&args).await;
    let world = TestWorld::with(stores, vec![instance]);
    let (api, user, key) = (&world.api, new_user(), new_key());
    api.charge_with_key(&user, 100, &key).await.expect(201);
    world.stores.audit().await;

    signal("-STOP", replica.pid());
    let other = new_user();
    api.charge_with_key(&other, 50, &key).await.problem(503, "store_unavailable");
    assert_eq!(api.balance(&other).await, 50, "the primary has it");
    assert_eq!(
        world.stores.count("SELECT COUNT(*) FROM wallet_entries WHERE amount = 50").await,
        0
    );
    signal("-CONT", replica.pid());
    // The same key returns the outcome.
    eventually("the replica has it", || async {
        let answer = api.charge_with_key(&other, 50, &key).await;
        (answer.status == 201)
            .then(|| assert_eq!(answer.header("idempotency-replayed"), Some("true")))
    })
    .await;
    let facts = world.stores.audit().await;
    assert_eq!(facts.wallets.values().sum::<i64>(), 150);
    drop(world);
    replica.stop().await.unwrap();
}
