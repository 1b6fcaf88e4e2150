//! Sentinel: a replica that lags, and a primary that comes back after it was given up. Failovers under load stand in `faults/failover.rs`.

use crate::support::resp::Resp;
use crate::support::{ELECTED, Sentinels, Stores, World, new_key, new_user, within};

/// Until a request under a key is answered as done, on every instance's turn.
async fn charged(world: &World, user: &str, amount: i64, key: &str) {
    within(ELECTED, "the charge is taken", || async {
        (world.api.charge_as(user, amount, key).await.status == 201).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lagging_replica_takes_over_and_nothing_that_was_answered_is_lost() {
    let sentinels = Sentinels::start("0").await;
    let stores = Stores::among(sentinels.several(), None).await;
    let mut args = stores.args();
    args.stores.redis_wait_replicas = Some("1".into());
    let world = World::with_args(stores, &[args.clone(), args]).await;
    let (user, other, key) = (new_user(), new_user(), new_key());
    charged(&world, &user, 100, &new_key()).await;
    world.stores.audit().await;

    // The replica stands still, and its connection is gone: what it does not have is neither answered nor brought to MySQL.
    let first = sentinels.primary().await.unwrap();
    let second = sentinels.other(first);
    sentinels.freeze(second, true).await;
    Resp::connect(first).await.ask(&["CLIENT", "KILL", "TYPE", "replica"]).await;
    world.api.charge_as(&other, 50, &key).await.problem(503, "store_unavailable");
    let written = "SELECT COUNT(*) FROM wallet_entries WHERE amount = 50";
    assert_eq!(world.stores.count(written).await, 0);

    // It takes the place of the primary, without what that one had alone.
    sentinels.kill(first).await;
    sentinels.freeze(second, false).await;
    sentinels.replaced(first).await;
    assert_eq!(sentinels.primary().await, Some(second));
    within(ELECTED, "the new primary is found, and lacks it", || async {
        let balance = world.api.get("/v1/wallet").user(&other).send().await;
        (balance.status == 200).then(|| assert_eq!(balance.body["balance"], 0))
    })
    .await;

    // The old one comes back, with what it had alone, and is told to follow.
    sentinels.start_again(first).await;
    sentinels.are_whole().await;
    charged(&world, &other, 50, &key).await;
    assert_eq!(world.api.balance(&other).await, 50);
    assert_eq!(world.api.balance(&user).await, 100);
    let facts = world.stores.audit().await;
    assert_eq!(facts.wallets.values().sum::<i64>(), 150);
    assert_eq!(world.stores.count(written).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_was_asleep_is_not_believed_any_more() {
    // As the example of README has it.
    let sentinels = Sentinels::start("1").await;
    let stores = Stores::among(sentinels.several(), None).await;
    let mut args = stores.args();
    args.stores.redis_wait_replicas = Some("1".into());
    let world = World::with_args(stores, &[args.clone(), args]).await;
    let user = new_user();
    charged(&world, &user, 100, &new_key()).await;

    let first = sentinels.primary().await.unwrap();
    sentinels.freeze(first, true).await;
    let key = new_key();
    let asked = world.api.charge_as(&user, 7, &key);
    let (asked, ()) = tokio::join!(asked, sentinels.replaced(first));
    // Of a charge that was under way nothing is known, and it was not told as done.
    assert_eq!(asked.status, 503, "{asked:?}");
    within(ELECTED, "the new primary is asked", || async {
        (world.api.get("/v1/wallet").user(&user).send().await.status == 200).then_some(())
    })
    .await;

    // It wakes up, takes itself for the primary until it is told, and may run what still stood in its buffers.
    sentinels.freeze(first, false).await;
    sentinels.are_whole().await;
    charged(&world, &user, 7, &key).await;
    assert_eq!(world.api.balance(&user).await, 107);
    let facts = world.stores.audit().await;
    assert_eq!(facts.wallets.values().sum::<i64>(), 107);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_lacks_what_mysql_has_is_laid_back_before_it_serves() {
    let sentinels = Sentinels::start("0").await;
    let stores = Stores::among(sentinels.several(), None).await;
    // Nothing waits for a replica here, so MySQL may come to have more than it.
    let world = World::on(stores, 2).await;
    let (user, other) = (new_user(), new_user());
    charged(&world, &user, 100, &new_key()).await;
    world.stores.audit().await;
    let first = sentinels.primary().await.unwrap();
    let second = sentinels.other(first);
    // It was the primary once, as it were: that it does not know the scripts is no help.
    let mut replica = Resp::connect(second).await;
    for script in usher::redis::scripts::ALL {
        replica.ask(&["SCRIPT", "LOAD", script.body()]).await;
    }
    sentinels.freeze(second, true).await;
    Resp::connect(first).await.ask(&["CLIENT", "KILL", "TYPE", "replica"]).await;
    charged(&world, &other, 50, &new_key()).await;
    within(ELECTED, "MySQL has what the replica lacks", || async {
        let written = "SELECT COUNT(*) FROM wallet_entries WHERE amount = 50";
        (world.stores.count(written).await == 1).then_some(())
    })
    .await;

    sentinels.kill(first).await;
    sentinels.freeze(second, false).await;
    // Many ask, at all times, so that somebody would meet what the replica had if it could be met for a moment.
    let asked = (0..40).map(async |nth: usize| {
        tokio::time::sleep(std::time::Duration::from_millis(5 * nth as u64)).await;
        let api = world.api.only(nth % 2);
        let (of, balance) = if nth < 30 { (&other, 50) } else { (&user, 100) };
        within(ELECTED, "the wallet is told again", || async {
            let told = api.get("/v1/wallet").user(of).send().await;
            (told.status == 200).then(|| assert_eq!(told.body["balance"], balance))
        })
        .await;
    });
    futures::future::join_all(asked).await;
    sentinels.start_again(first).await;
    sentinels.are_whole().await;
    assert_eq!(world.stores.audit().await.wallets.values().sum::<i64>(), 150);
}
