//! Recovery when things go wrong on the way: a Redis from yesterday, a kill in the middle, two at once.

use futures::future::join_all;

use crate::recovery::restore::{buyer, fair, generations, replays, serves_again};
use crate::support::servers::PARTITIONS;
use crate::support::{
    Api, Instance, NIGHT, Process, SHOW, Stores, TempDir, World, eventually, new_key, new_user,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_from_yesterday_sells_nothing_twice() {
    let mut world = World::on(Stores::with_own_redis().await, 2).await;
    fair(&world, 60).await;
    let api = world.api.clone();
    join_all((1..=6).map(|seat| buyer(&api, seat, false))).await;
    // In line before and after, so that their tokens are good in both.
    let waiting = join_all((0..10).map(|_| api.active_guest(SHOW))).await;
    world.stores.audit().await;
    let yesterday = world.stores.saved();
    let buyers = join_all((7..=16).map(|seat| buyer(&api, seat, seat % 2 == 0))).await;
    let facts = world.stores.audit().await;
    let had = generations(&world.stores).await;

    // Whoever asks while Redis is away is queued in the clients, and sent to whatever comes back.
    let mut queued = Vec::new();
    let user = new_user();
    world
        .stores
        .rolled_back(&yesterday, async || {
            for (seat, guest) in (7..).zip(&waiting) {
                let (api, token, user) = (api.clone(), guest.token.clone(), user.clone());
                queued.push(tokio::spawn(async move {
                    let hold = api.hold(&token, NIGHT, &[seat]).await;
                    let charge = api.charge_as(&user, 1, &new_key()).await;
                    (hold.status, charge.status)
                }));
            }
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        })
        .await;
    eventually("what is older is laid back", || async {
        let has = generations(&world.stores).await;
        (has != had && has.iter().all(|has| has.parse::<u64>().is_ok())).then_some(())
    })
    .await;
    serves_again(&api).await;
    for answer in join_all(queued).await {
        let (hold, charge) = answer.unwrap();
        assert!(hold != 201, "a seat that was sold today was held: {hold} {charge}");
    }
    let after = world.stores.audit().await;
    assert_eq!((after.sold, after.payments), (facts.sold, facts.payments));
    join_all(buyers.iter().map(|buyer| replays(&api, buyer))).await;
    let late = api.active_guest(SHOW).await;
    for seat in 1..=16 {
        api.hold(&late.token, NIGHT, &[seat]).await.problem(409, "seat_taken");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recovery_killed_anywhere_is_begun_anew() {
    for point in [
        "recovery/replace_fence.before=1*return(kill)",
        "recovery/clear.after=1*return(kill)",
        "recovery/restore_hash.before=2*off->1*return(kill)",
        "recovery/restore_payments.after=1*return(kill)",
        "recovery/restore_queue.after=1*return(kill)",
        // The new generation is in Redis, and MySQL does not have it.
        "recovery.before_commit=1*off->1*return(kill)",
    ] {
        let stores = Stores::with_own_redis().await;
        let instance = World::on(stores, 1).await;
        fair(&instance, 20).await;
        let buyers = join_all((1..=6).map(|seat| buyer(&instance.api, seat, seat % 2 == 0))).await;
        let facts = instance.stores.audit().await;
        let stores = instance.stop().await;

        let process = Process::start_failing(&stores, point).await;
        let mut redis = stores.redis().await;
        // The old state is left behind, and something that was never there: all of it has to be cleared.
        for partition in 0..PARTITIONS {
            redis.ask(&["HSET", &stores.key(partition, "wallets"), "0123456789abcdef", "7"]).await;
        }
        let fences: Vec<String> = (0..PARTITIONS).map(|it| stores.key(it, "epoch")).collect();
        let mut words = vec!["DEL"];
        words.extend(fences.iter().map(String::as_str));
        redis.ask(&words).await;
        process.died().await;
        let next = Instance::start(&stores).await;
        let api = Api::new(vec![[next.public.clone(), next.admin.clone()]]);
        serves_again(&api).await;
        assert_eq!(stores.audit().await, facts, "{point}");
        join_all(buyers.iter().map(|buyer| replays(&api, buyer))).await;
        next.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_serve_while_one_partition_is_lost() {
    let world = World::on(Stores::with_own_redis().await, 2).await;
    fair(&world, 40).await;
    let (api, stores) = (&world.api, &world.stores);
    let buyers = join_all((1..=8).map(|seat| buyer(api, seat, false))).await;
    let facts = stores.audit().await;
    let lost = (stores.partition_of(SHOW) + 1) % PARTITIONS;
    let elsewhere = || {
        std::iter::repeat_with(new_user)
            .find(|user| stores.partition_of_user(user) != lost)
            .unwrap()
    };
    let there = || {
        std::iter::repeat_with(new_user)
            .find(|user| stores.partition_of_user(user) == lost)
            .unwrap()
    };

    // As long as its checkpoint is locked nobody can lay it back.
    let mut lock = stores.mysql.begin().await.unwrap();
    let select = "SELECT n FROM outbox_checkpoints WHERE partition_id = ? FOR UPDATE";
    sqlx::query(select).bind(lost).fetch_all(&mut *lock).await.unwrap();
    stores.lose(lost).await;
    let (inside, outside) = (elsewhere(), there());
    for at in 0..api.instances() {
        let api = api.only(at);
        eventually("the lost one is closed", || async {
            (api.charge_as(&outside, 1, &new_key()).await.status == 503).then_some(())
        })
        .await;
        api.charge_as(&outside, 1, &new_key()).await.problem(503, "recovering");
        api.charge_as(&inside, 100, &new_key()).await.expect(201);
    }
    let guest = api.active_guest(SHOW).await;
    api.held(&guest.token, NIGHT, &[30]).await;
    lock.rollback().await.unwrap();
    serves_again(api).await;
    let after = stores.audit().await;
    assert_eq!((&after.sold, &after.payments), (&facts.sold, &facts.payments));
    assert_eq!(api.balance(&inside).await, 200);
    assert_eq!(api.balance(&outside).await, 0);
    join_all(buyers.iter().map(|buyer| replays(api, buyer))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_that_start_on_an_emptied_redis_lay_it_back_once() {
    let world = World::on(Stores::with_own_redis().await, 1).await;
    fair(&world, 20).await;
    let buyers = join_all((1..=6).map(|seat| buyer(&world.api, seat, seat % 2 == 0))).await;
    let facts = world.stores.audit().await;
    let stores = world.stop().await;
    stores.redis().await.ask(&["FLUSHALL"]).await;
    let (one, other) = tokio::join!(Process::start(&stores), Process::start(&stores));
    let laid = stores.count("SELECT COUNT(*) FROM recoveries WHERE laid_at IS NOT NULL").await;
    assert_eq!(laid, i64::from(PARTITIONS), "each partition was laid back by one of the two");
    assert_eq!(stores.audit().await, facts);
    for process in [&one, &other] {
        join_all(buyers.iter().map(async |buyer| replays(&process.api(), buyer).await)).await;
    }
    one.kill().await;
    other.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_commits_late_is_waited_for_before_redis_is_trusted() {
    let world = World::on(Stores::with_own_redis().await, 1).await;
    let user = new_user();
    world.api.charge(&user, 3).await;
    world.stores.audit().await;
    let mut stores = world.stop().await;
    let yesterday = stores.saved();

    let gate = TempDir::new("it-gate").unwrap();
    let gate = gate.path().join("go");
    let process = Process::start_failing(
        &stores,
        &format!("writer.before_commit=return(until {})", gate.display()),
    )
    .await;
    let api = process.api();
    api.charge(&user, 5).await;
    process.reached("writer.before_commit").await;
    // The charge is read and not committed. By its number the older Redis would deal out the next one, which nobody would ever write.
    stores.rolled_back(&yesterday, async || {}).await;
    for _ in 0..3 {
        let answer = api.charge_as(&user, 7, &new_key()).await;
        assert_eq!(answer.status, 503, "{answer:?}");
    }
    std::fs::write(gate, "").unwrap();
    eventually("it serves again", || async {
        let answer = api.get("/v1/wallet").user(&user).send().await;
        (answer.status == 200).then(|| assert_eq!(answer.body["balance"], 8))
    })
    .await;
    serves_again(&api).await;
    api.charge(&user, 7).await;
    assert_eq!(api.balance(&user).await, 15);
    stores.audit().await;
    process.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_loses_what_was_just_laid_is_laid_back_anew() {
    let world = World::on(Stores::with_own_redis().await, 1).await;
    fair(&world, 20).await;
    let buyers = join_all((1..=6).map(|seat| buyer(&world.api, seat, seat % 2 == 0))).await;
    let facts = world.stores.audit().await;
    let mut stores = world.stop().await;
    let at = stores.partition_of_user(&buyers[0].guest.user);
    stores.lose(at).await;

    let gate = TempDir::new("it-gate").unwrap();
    let gate = gate.path().join("go");
    let point = format!("recovery/restore_sequence.before=1*return(until {})", gate.display());
    let process = Process::spawn(&stores, &[("FAILPOINTS", point)]).await;
    process.reached("recovery/restore_sequence.before").await;
    // The bar stands and the wallets are laid. Redis dies, and its file ends after the bar.
    let cut = stores.saved();
    let wallets = format!("{}\r\n", stores.key(at, "wallets"));
    let mut files = std::fs::read_dir(cut.path()).unwrap().map(|file| file.unwrap().path());
    let file = files.find(|file| file.to_string_lossy().ends_with(".incr.aof")).unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    let end = bytes.windows(wallets.len()).rposition(|part| part == wallets.as_bytes()).unwrap();
    bytes.truncate(end);
    std::fs::write(&file, bytes).unwrap();
    stores.rolled_back(&cut, async || std::fs::write(&gate, "").unwrap()).await;

    let api = process.api();
    serves_again(&api).await;
    assert_eq!(stores.audit().await, facts);
    join_all(buyers.iter().map(|buyer| replays(&api, buyer))).await;
    process.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_replaced_while_it_is_looked_at_learns_no_scripts() {
    let world = World::on(Stores::with_own_redis().await, 1).await;
    let user = new_user();
    world.api.charge(&user, 3).await;
    world.stores.audit().await;
    let mut stores = world.stop().await;
    let yesterday = stores.saved();

    let gates = TempDir::new("it-gate").unwrap();
    let [load, bar] = ["load", "bar"].map(|name| gates.path().join(name));
    let points = format!(
        "redis.load_scripts=1*off->1*return(until {});recovery/fence_stale.before=1*return(until {})",
        load.display(),
        bar.display()
    );
    let process = Process::start_failing(&stores, &points).await;
    let api = process.api();
    api.charge(&user, 5).await;
    stores.audit().await;
    let today = stores.saved();
    stores.rolled_back(&today, async || {}).await;
    process.reached("redis.load_scripts").await;
    // What it had looked at is today's. Before it says so, yesterday's takes its place.
    stores.rolled_back(&yesterday, async || std::fs::write(&load, "").unwrap()).await;
    process.reached("recovery/fence_stale.before").await;
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
    eventually("it serves again", || async {
        let answer = api.get("/v1/wallet").user(&user).send().await;
        (answer.status == 200).then(|| assert_eq!(answer.body["balance"], 8))
    })
    .await;
    serves_again(&api).await;
    stores.audit().await;
    process.kill().await;
}
