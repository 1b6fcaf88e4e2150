//! When the stores can't keep up: new work is refused before anything that is paid is in danger, and it comes back by itself.

use futures::future::join_all;
use serde_json::json;
use usher::app::UsherApp;
use usher::config::UsherConfig;
use usher::config::args::ServeArgs;
use usher::dev::{PrivateRedis, TempDir};
use usher::shutdown::ShutdownSignal;

use crate::support::{
    Api, Instance, NIGHT, Process, Relays, SHOW, Stores, World, eventually, new_key, new_user,
    signal,
};

fn text(number: u32) -> Option<String> {
    Some(number.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_mysql_new_work_is_refused_and_what_is_held_is_paid() {
    let stores = Stores::new().await;
    let relays = Relays::before(&stores).await;
    let mut args = relays.args(&stores);
    (args.stores.backlog_warn, args.stores.backlog_limit) = (text(20), text(100));
    let world = World::with_args(stores, &[args.clone(), args]).await;
    world.show(20, 1_000).await;
    world
        .queue("slow", json!({"promote_per_interval": 1, "interval_ms": 1_000, "max_active": 1}))
        .await;
    let api = &world.api;
    let (payer, canceller, holder) =
        (api.active_guest(SHOW).await, api.active_guest(SHOW).await, api.active_guest(SHOW).await);
    for guest in [&payer, &canceller] {
        api.charge(&guest.user, 1_000).await;
    }
    let held = api.held(&payer.token, NIGHT, &[1]).await;
    let bought = api.held(&canceller.token, NIGHT, &[2]).await;
    api.pay(&canceller.token, &bought, &new_key()).await.expect(201);
    let (inside, waiting) = (api.active_guest("slow").await, api.guest("slow").await);
    world.stores.at_rest().await;

    relays.mysql.down();
    let fill = async |entries: u32| {
        for _ in 0..entries {
            api.charge(&new_user(), 10).await;
        }
    };
    // Halfway between the marks: nobody new gets in line, but whoever is inside may hold.
    fill(70).await;
    for at in 0..2 {
        let api = api.only(at);
        eventually("joins are refused", || async {
            // Who is inside already is told so until then, which adds nothing to the backlog.
            api.join(SHOW, &holder.user).await.as_problem(503, "overloaded").ok()
        })
        .await;
        api.held(&holder.token, NIGHT, &[3 + u32::try_from(at).unwrap()]).await;
    }
    // At the limit: no promotions and no holds, and everything that is under way goes on.
    fill(40).await;
    for at in 0..2 {
        let api = api.only(at);
        eventually("holds are refused", || async {
            // A seat that is taken.
            api.hold(&holder.token, NIGHT, &[1]).await.as_problem(503, "overloaded").ok()
        })
        .await;
        let best = json!({"schedule_id": NIGHT, "quantity": 1});
        let best = api.post("/v1/reservations/best").token(&holder.token).json(&best).send().await;
        best.problem(503, "overloaded");
    }
    let path = format!("/v1/queues/{}/tokens/me", "slow");
    api.delete(&path).token(&inside.token).send().await.expect(204);
    api.pay(&payer.token, &held, &new_key()).await.expect(201);
    let cancel = format!("/v1/reservations/{bought}/cancel");
    let cancelled =
        api.post(&cancel).user(&canceller.user).key(&new_key()).send().await.expect(200);
    assert_eq!(cancelled["status"], "cancelled");
    assert_eq!(api.balance(&canceller.user).await, 1_000);
    assert_eq!(api.poll("slow", &waiting.token).await.expect(200)["status"], "waiting");

    relays.mysql.up();
    api.until_active("slow", &waiting).await;
    for at in 0..2 {
        let api = api.only(at);
        eventually("joins are taken again", || async {
            (api.join(SHOW, &new_user()).await.status == 201).then_some(())
        })
        .await;
    }
    api.held(&holder.token, NIGHT, &[10]).await;
    let facts = world.stores.audit().await;
    assert_eq!((facts.payments_that_are("confirmed"), facts.payments_that_are("refunded")), (1, 1));
    assert_eq!(
        world.stores.count("SELECT COUNT(*) FROM wallet_entries WHERE amount = 10").await,
        110
    );
}

/// Leaves Redis no room for anything that is not allowed to take more.
async fn fill_up(stores: &Stores, full: bool) {
    let limit = if full { "1" } else { "0" };
    stores.redis().await.ask(&["CONFIG", "SET", "maxmemory", limit]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_redis_ends_payments_and_begins_none() {
    let stores = Stores::with_own_redis().await;
    let dir = TempDir::new("it-full").unwrap();
    let go = dir.path().join("go");
    let points = ["payment/confirm.before", "wallet/debit.before"]
        .map(|point| format!("{point}=1*return(until {})", go.display()));
    let processes = [
        Process::start_failing(&stores, &points[0]).await,
        Process::start_failing(&stores, &points[1]).await,
    ];
    let apis: Vec<Api> = processes.iter().map(Process::api).collect();
    apis[0].put("/admin/queues/show", &crate::support::world::fast_queue()).await.expect(200);
    apis[0].put("/admin/concerts/show", &crate::support::world::show(9, 1_000)).await.expect(200);
    let mut payments = Vec::new();
    for (at, api) in apis.iter().enumerate() {
        eventually("the show is known", || async {
            (api.get("/v1/concerts/show").send().await.status == 200).then_some(())
        })
        .await;
        let guest = api.active_guest(SHOW).await;
        api.charge(&guest.user, 1_000).await;
        let reservation = api.held(&guest.token, NIGHT, &[u32::try_from(at).unwrap() + 1]).await;
        let (api, token) = (api.clone(), guest.token.clone());
        payments.push(tokio::spawn(async move { api.pay(&token, &reservation, &new_key()).await }));
    }
    processes[0].reached("payment/confirm.before").await;
    processes[1].reached("wallet/debit.before").await;
    let guest = apis[0].active_guest(SHOW).await;
    stores_at_rest_but_for_payments(&stores).await;
    fill_up(&stores, true).await;

    // Nothing new begins, and each refusal says so.
    let api = &apis[0];
    api.join(SHOW, &new_user()).await.problem(503, "overloaded");
    api.hold(&guest.token, NIGHT, &[5]).await.problem(503, "overloaded");
    api.charge_as(&new_user(), 10, &new_key()).await.problem(503, "overloaded");
    assert_eq!(api.balance(&guest.user).await, 0, "what only reads is answered");

    // One payment is confirmed, the other can't be debited and is turned back by the sweep: void, refund and voided need no room.
    std::fs::write(&go, "").unwrap();
    let mut payments = join_all(payments).await.into_iter().map(Result::unwrap);
    payments.next().unwrap().expect(201);
    let turned_back = payments.next().unwrap();
    assert!([202, 503].contains(&turned_back.status), "{turned_back:?}");
    eventually("the other is turned back", || async {
        let voided = "SELECT COUNT(*) FROM payments WHERE status = 'voided'";
        (stores.count(voided).await == 1).then_some(())
    })
    .await;
    fill_up(&stores, false).await;
    api.charge(&guest.user, 10).await;
    let facts = stores.audit().await;
    assert_eq!((facts.payments_that_are("confirmed"), facts.sold.len()), (1, 1));
}

/// Waits until the outboxes are empty.
async fn stores_at_rest_but_for_payments(stores: &Stores) {
    eventually("the outboxes are empty", || async {
        let mut redis = stores.redis().await;
        for partition in 0..crate::support::servers::PARTITIONS {
            if redis.ask(&["XLEN", &stores.key(partition, "outbox")]).await.int() > 0 {
                return None;
            }
        }
        Some(())
    })
    .await;
}

/// Why an instance does not start, if it doesn't.
async fn refusal(args: &ServeArgs) -> Option<String> {
    UsherApp::build(UsherConfig::new(args).unwrap(), ShutdownSignal::new())
        .await
        .err()
        .map(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_forgets_is_refused_unless_that_is_allowed() {
    let stores = Stores::with_own_redis().await;
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
    let lacks = knows == [crate::support::resp::Reply::Nil];
    assert_eq!(refusal(&aof).await.is_some_and(|why| why.contains("USHER_REDIS_WAIT_AOF")), lacks);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_replica_has_is_neither_answered_nor_written() {
    let stores = Stores::with_own_redis().await;
    let dir = TempDir::new("it-replica").unwrap();
    let replica = PrivateRedis::start(dir.path()).await.unwrap();
    let port = stores.redis_port.to_string();
    let mut on_replica = crate::support::resp::Resp::connect(replica.port()).await;
    on_replica.ask(&["REPLICAOF", "127.0.0.1", &port]).await;
    eventually("the replica follows", || async {
        let mut redis = stores.redis().await;
        let info = redis.ask(&["INFO", "replication"]).await.text();
        info.contains("state=online").then_some(())
    })
    .await;
    let mut args = stores.args();
    args.stores.redis_wait_replicas = text(1);
    let instance = Instance::start_with(&args).await;
    let world = World::with(stores, vec![instance]);
    let (api, user, key) = (&world.api, new_user(), new_key());
    api.charge_as(&user, 100, &key).await.expect(201);
    world.stores.audit().await;

    signal("-STOP", replica.pid());
    let other = new_user();
    api.charge_as(&other, 50, &key).await.problem(503, "store_unavailable");
    assert_eq!(api.balance(&other).await, 50, "the primary has it");
    assert_eq!(
        world.stores.count("SELECT COUNT(*) FROM wallet_entries WHERE amount = 50").await,
        0
    );
    signal("-CONT", replica.pid());
    // The same key tells what became of it.
    eventually("the replica has it", || async {
        let answer = api.charge_as(&other, 50, &key).await;
        (answer.status == 201)
            .then(|| assert_eq!(answer.header("idempotency-replayed"), Some("true")))
    })
    .await;
    let facts = world.stores.audit().await;
    assert_eq!(facts.wallets.values().sum::<i64>(), 150);
    drop(world);
    replica.stop().await.unwrap();
}
