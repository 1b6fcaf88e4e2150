//! Faults during recovery: a stale Redis, a kill at any step, two recoveries at once.

use futures::future::join_all;

use crate::recovery::restore::{assert_replays, buyer, generations, open_sale, wait_until_serving};
use crate::support::servers::{PARTITIONS, partition_of_user};
use crate::support::{
    ApiClient, CONCERT, SCHEDULE, TempDir, TestInstance, TestStores, TestWorld, UsherProcess,
    eventually, new_key, new_user,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stale_redis_sells_nothing_twice() {
    let mut world = TestWorld::on(TestStores::with_own_redis().await, 2).await;
    open_sale(&world, 60).await;
    let api = world.api.clone();
    join_all((1..=6).map(|seat| buyer(&api, seat, false))).await;
    // Users joined before and after the copy, so that their tokens are valid in both states.
    let waiting = join_all((0..10).map(|_| api.active_user(CONCERT))).await;
    world.stores.audit().await;
    let yesterday = world.stores.copy_of_redis_files();
    let buyers = join_all((7..=16).map(|seat| buyer(&api, seat, seat % 2 == 0))).await;
    let facts = world.stores.audit().await;
    let had = generations(&world.stores).await;

    // Requests while Redis is down wait in the client, and go to the server that comes back.
    let mut queued = Vec::new();
    let user = new_user();
    world
        .stores
        .roll_back_redis(&yesterday, async || {
            for (seat, guest) in (7..).zip(&waiting) {
                let (api, token, user) = (api.clone(), guest.token.clone(), user.clone());
                queued.push(tokio::spawn(async move {
                    let hold = api.hold(&token, SCHEDULE, &[seat]).await;
                    let charge = api.charge_with_key(&user, 1, &new_key()).await;
                    (hold.status, charge.status)
                }));
            }
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        })
        .await;
    eventually("the stale state is restored", || async {
        let has = generations(&world.stores).await;
        (has != had && has.iter().all(|has| has.parse::<u64>().is_ok())).then_some(())
    })
    .await;
    wait_until_serving(&api).await;
    for answer in join_all(queued).await {
        let (hold, charge) = answer.unwrap();
        assert!(hold != 201, "a sold seat was held: {hold} {charge}");
    }
    let after = world.stores.audit().await;
    assert_eq!((after.sold, after.payments), (facts.sold, facts.payments));
    join_all(buyers.iter().map(|buyer| assert_replays(&api, buyer))).await;
    let late = api.active_user(CONCERT).await;
    for seat in 1..=16 {
        api.hold(&late.token, SCHEDULE, &[seat]).await.problem(409, "seat_taken");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recovery_killed_at_any_step_restarts() {
    for point in [
        "recovery/replace_fence.before=1*return(kill)",
        "recovery/clear.after=1*return(kill)",
        "recovery/restore_hash.before=2*off->1*return(kill)",
        "recovery/restore_payments.after=1*return(kill)",
        "recovery/restore_queue.after=1*return(kill)",
        // The new epoch is in Redis, and MySQL does not have it.
        "recovery.before_commit=1*off->1*return(kill)",
    ] {
        let stores = TestStores::with_own_redis().await;
        let instance = TestWorld::on(stores, 1).await;
        open_sale(&instance, 20).await;
        let buyers = join_all((1..=6).map(|seat| buyer(&instance.api, seat, seat % 2 == 0))).await;
        let facts = instance.stores.audit().await;
        let stores = instance.stop().await;

        let process = UsherProcess::start_failing(&stores, point).await;
        let mut redis = stores.redis().await;
        // The old state is still there, and a key that never existed before: all of it has to be
        // deleted.
        for partition in 0..PARTITIONS {
            redis.ask(&["HSET", &stores.key(partition, "wallets"), "0123456789abcdef", "7"]).await;
        }
        let fences: Vec<String> = (0..PARTITIONS).map(|it| stores.key(it, "epoch")).collect();
        let mut words = vec!["DEL"];
        words.extend(fences.iter().map(String::as_str));
        redis.ask(&words).await;
        process.wait_until_killed().await;
        let next = TestInstance::start(&stores).await;
        let api = ApiClient::new(vec![[next.public.clone(), next.admin.clone()]]);
        wait_until_serving(&api).await;
        assert_eq!(stores.audit().await, facts, "{point}");
        join_all(buyers.iter().map(|buyer| assert_replays(&api, buyer))).await;
        next.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_partitions_serve_while_one_is_lost() {
    let world = TestWorld::on(TestStores::with_own_redis().await, 2).await;
    open_sale(&world, 40).await;
    let (api, stores) = (&world.api, &world.stores);
    let buyers = join_all((1..=8).map(|seat| buyer(api, seat, false))).await;
    let facts = stores.audit().await;
    let lost = (stores.partition_of(CONCERT) + 1) % PARTITIONS;
    let elsewhere =
        || std::iter::repeat_with(new_user).find(|user| partition_of_user(user) != lost).unwrap();
    let there =
        || std::iter::repeat_with(new_user).find(|user| partition_of_user(user) == lost).unwrap();

    // While its checkpoint is locked no instance can restore it.
    let mut lock = stores.mysql.begin().await.unwrap();
    let select = "SELECT n FROM outbox_checkpoints WHERE partition_id = ? FOR UPDATE";
    sqlx::query(select).bind(lost).fetch_all(&mut *lock).await.unwrap();
    stores.lose_partition(lost).await;
    let (in_lost, in_other) = (elsewhere(), there());
    for at in 0..api.instances() {
        let api = api.for_instance(at);
        eventually("the lost partition refuses requests", || async {
            (api.charge_with_key(&in_other, 1, &new_key()).await.status == 503).then_some(())
        })
        .await;
        api.charge_with_key(&in_other, 1, &new_key()).await.problem(503, "recovering");
        api.charge_with_key(&in_lost, 100, &new_key()).await.expect(201);
    }
    let guest = api.active_user(CONCERT).await;
    api.hold_seats(&guest.token, SCHEDULE, &[30]).await;
    lock.rollback().await.unwrap();
    wait_until_serving(api).await;
    let after = stores.audit().await;
    assert_eq!((&after.sold, &after.payments), (&facts.sold, &facts.payments));
    assert_eq!(api.balance(&in_lost).await, 200);
    assert_eq!(api.balance(&in_other).await, 0);
    join_all(buyers.iter().map(|buyer| assert_replays(api, buyer))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_instances_restore_an_emptied_redis_once() {
    let world = TestWorld::on(TestStores::with_own_redis().await, 1).await;
    open_sale(&world, 20).await;
    let buyers = join_all((1..=6).map(|seat| buyer(&world.api, seat, seat % 2 == 0))).await;
    let facts = world.stores.audit().await;
    let stores = world.stop().await;
    stores.redis().await.ask(&["FLUSHALL"]).await;
    let (one, other) = tokio::join!(UsherProcess::start(&stores), UsherProcess::start(&stores));
    let restored = stores.count("SELECT COUNT(*) FROM recoveries WHERE laid_at IS NOT NULL").await;
    assert_eq!(restored, i64::from(PARTITIONS), "each partition was restored by one of the two");
    assert_eq!(stores.audit().await, facts);
    for process in [&one, &other] {
        join_all(buyers.iter().map(async |buyer| assert_replays(&process.api(), buyer).await))
            .await;
    }
    one.kill().await;
    other.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verification_waits_for_a_late_commit() {
    let world = TestWorld::on(TestStores::with_own_redis().await, 1).await;
    let user = new_user();
    world.api.charge(&user, 3).await;
    world.stores.audit().await;
    let mut stores = world.stop().await;
    let yesterday = stores.copy_of_redis_files();

    let gate = TempDir::new("it-gate").unwrap();
    let gate = gate.path().join("go");
    let process = UsherProcess::start_failing(
        &stores,
        &format!("writer.before_commit=return(until {})", gate.display()),
    )
    .await;
    let api = process.api();
    api.charge(&user, 5).await;
    process.wait_for_failpoint("writer.before_commit").await;
    // The charge is read and not committed. The older Redis would assign its number to the next
    // event, which would then never be written.
    stores.roll_back_redis(&yesterday, async || {}).await;
    for _ in 0..3 {
        let answer = api.charge_with_key(&user, 7, &new_key()).await;
        assert_eq!(answer.status, 503, "{answer:?}");
    }
    std::fs::write(gate, "").unwrap();
    eventually("the partition serves again", || async {
        let answer = api.get("/v1/wallet").user(&user).send().await;
        (answer.status == 200).then(|| assert_eq!(answer.body["balance"], 8))
    })
    .await;
    wait_until_serving(&api).await;
    api.charge(&user, 7).await;
    assert_eq!(api.balance(&user).await, 15);
    stores.audit().await;
    process.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_that_loses_a_restore_is_restored_again() {
    let world = TestWorld::on(TestStores::with_own_redis().await, 1).await;
    open_sale(&world, 20).await;
    let buyers = join_all((1..=6).map(|seat| buyer(&world.api, seat, seat % 2 == 0))).await;
    let facts = world.stores.audit().await;
    let mut stores = world.stop().await;
    let at = partition_of_user(&buyers[0].guest.user);
    stores.lose_partition(at).await;

    let gate = TempDir::new("it-gate").unwrap();
    let gate = gate.path().join("go");
    let point = format!("recovery/restore_sequence.before=1*return(until {})", gate.display());
    let process = UsherProcess::spawn(&stores, &[("FAILPOINTS", point)]).await;
    process.wait_for_failpoint("recovery/restore_sequence.before").await;
    // The fence is set and the wallets are restored. Redis dies, and its file ends after the fence.
    let cut = stores.copy_of_redis_files();
    let wallets = format!("{}\r\n", stores.key(at, "wallets"));
    let mut files = std::fs::read_dir(cut.path()).unwrap().map(|file| file.unwrap().path());
    let file = files.find(|file| file.to_string_lossy().ends_with(".incr.aof")).unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    let end = bytes.windows(wallets.len()).rposition(|part| part == wallets.as_bytes()).unwrap();
    bytes.truncate(end);
    std::fs::write(&file, bytes).unwrap();
    stores.roll_back_redis(&cut, async || std::fs::write(&gate, "").unwrap()).await;

    let api = process.api();
    wait_until_serving(&api).await;
    assert_eq!(stores.audit().await, facts);
    join_all(buyers.iter().map(|buyer| assert_replays(&api, buyer))).await;
    process.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_replaced_during_verification_gets_no_scripts() {
    let world = TestWorld::on(TestStores::with_own_redis().await, 1).await;
    let user = new_user();
    world.api.charge(&user, 3).await;
    world.stores.audit().await;
    let mut stores = world.stop().await;
    let yesterday = stores.copy_of_redis_files();

    let gates = TempDir::new("it-gate").unwrap();
    let [load, bar] = ["load", "bar"].map(|name| gates.path().join(name));
    let points = format!(
        "redis.load_scripts=1*off->1*return(until {});recovery/fence_stale.before=1*return(until \
             {})",
        load.display(),
        bar.display()
    );
    let process = UsherProcess::start_failing(&stores, &points).await;
    let api = process.api();
    api.charge(&user, 5).await;
    stores.audit().await;
    let today = stores.copy_of_redis_files();
    stores.roll_back_redis(&today, async || {}).await;
    process.wait_for_failpoint("redis.load_scripts").await;
    // It has verified today's state. Before it declares that, yesterday's state replaces it.
    stores.roll_back_redis(&yesterday, async || std::fs::write(&load, "").unwrap()).await;
    process.wait_for_failpoint("recovery/fence_stale.before").await;
    let mut redis = stores.redis().await;
    for name in ["wallet/charge", "wallet/balance", "queue/join"] {
        let script =
            usher::redis::scripts::ALL.iter().find(|script| script.name() == name).unwrap();
        assert_eq!(
            redis.ask(&["SCRIPT", "EXISTS", script.sha1()]).await.list().remove(0).int(),
            0,
            "{name}"
        );
    }
    std::fs::write(&bar, "").unwrap();
    eventually("the partition serves again", || async {
        let answer = api.get("/v1/wallet").user(&user).send().await;
        (answer.status == 200).then(|| assert_eq!(answer.body["balance"], 8))
    })
    .await;
    wait_until_serving(&api).await;
    stores.audit().await;
    process.kill().await;
}
