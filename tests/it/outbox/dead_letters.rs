//! Events that MySQL refuses are quarantined with their cause. Events around and behind them are
//! written. A retry applies them once the cause is gone.

use tokio::process::Command;

use crate::support::resp::RespClient;
use crate::support::servers::PARTITIONS;
use crate::support::{
    CONCERT, SCHEDULE, TestStores, TestWorld, eventually, new_key, new_user, on_one_and_two,
};

on_one_and_two!(
    event_refused_by_a_constraint_is_quarantined_alone,
    undecodable_event_is_quarantined,
    retry_keeps_newer_rows,
    sequence_gap_stops_its_partition,
    event_of_a_newer_version_stays_in_the_outbox,
);

/// Appends an entry directly, as a script would.
async fn append(redis: &mut RespClient, stores: &TestStores, partition: u16, payload: &str) -> i64 {
    let n = redis.ask(&["INCR", &stores.key(partition, "seq")]).await.int();
    let outbox = stores.key(partition, "outbox");
    redis.ask(&["XADD", &outbox, &format!("{n}-0"), "v1", payload]).await;
    n
}

/// Runs `usher dead-letters …`. Returns whether it succeeded, and its output.
async fn dead_letters(stores: &TestStores, words: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_usher"))
        .arg("dead-letters")
        .args(words)
        .env("USHER_MYSQL_URL", &stores.mysql_url)
        .env("USHER_PARTITIONS", PARTITIONS.to_string())
        .output()
        .await
        .unwrap();
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}

async fn letters(stores: &TestStores) -> i64 {
    stores.count("SELECT COUNT(*) FROM dead_letters").await
}

async fn event_refused_by_a_constraint_is_quarantined_alone(world: TestWorld) {
    world.put_show(20, 1_000).await;
    let (api, stores) = (&world.api, &world.stores);
    // Seat 5 has an owner in MySQL that Redis does not know.
    let stray = "INSERT INTO reservation_seats (schedule_id, seat_number, reservation_id) VALUES \
         ('night', 5, REPEAT('x', 16))";
    sqlx::query(stray).execute(&stores.mysql).await.unwrap();
    let buyers = (1..=9).map(async |seat| {
        let guest = api.active_user(CONCERT).await;
        api.charge(&guest.user, 1_000).await;
        let reservation = api.hold_seats(&guest.token, SCHEDULE, &[seat]).await;
        api.pay(&guest.token, &reservation, &new_key()).await.expect(201);
    });
    futures::future::join_all(buyers).await;
    eventually("the event is quarantined", || async { (letters(stores).await == 1).then_some(()) })
        .await;
    stores.wait_until_idle().await;
    // One event of the confirmed payment is missing.
    assert_eq!(stores.count("SELECT COUNT(*) FROM payments WHERE status = 'confirmed'").await, 9);
    assert_eq!(
        stores.count("SELECT COUNT(*) FROM reservations WHERE status = 'confirmed'").await,
        8
    );
    assert_eq!(stores.count("SELECT COUNT(*) FROM wallet_entries").await, 18);
    let (listed, printed) = dead_letters(stores, &["list"]).await;
    assert!(
        listed && printed.contains("events [") && printed.contains("Duplicate entry"),
        "{printed}"
    );
    assert!(printed.ends_with("1 dead letters\n"), "{printed}");

    let (retried, printed) = dead_letters(stores, &["retry"]).await;
    assert!(!retried && printed == "0 applied, 1 refused\n", "{printed}");
    sqlx::query("DELETE FROM reservation_seats WHERE reservation_id = REPEAT('x', 16)")
        .execute(&stores.mysql)
        .await
        .unwrap();
    let place: (u16, u64) = sqlx::query_as("SELECT partition_id, n FROM dead_letters")
        .fetch_one(&stores.mysql)
        .await
        .unwrap();
    let (_, printed) =
        dead_letters(stores, &["retry", "--only", &format!("{}:{}", place.0, place.1 + 1)]).await;
    assert_eq!(printed, "0 applied, 0 refused\n", "the named letter does not exist");
    let (retried, printed) =
        dead_letters(stores, &["retry", "--only", &format!("{}:{}", place.0, place.1)]).await;
    assert!(retried && printed == "1 applied, 0 refused\n", "{printed}");
    let facts = stores.audit().await;
    assert_eq!((facts.sold.len(), letters(stores).await), (9, 0));
}

async fn undecodable_event_is_quarantined(world: TestWorld) {
    let (api, stores) = (&world.api, &world.stores);
    let users: Vec<String> = (0..12).map(|_| new_user()).collect();
    let mut redis = stores.redis().await;
    for (at, user) in users.iter().enumerate() {
        api.charge(user, 100).await;
        if at % 4 == 1 {
            for partition in 0..PARTITIONS {
                append(&mut redis, stores, partition, "this is not MessagePack").await;
            }
        }
    }
    let expected = i64::from(3 * PARTITIONS);
    eventually("all are quarantined", || async {
        (letters(stores).await == expected).then_some(())
    })
    .await;
    let facts = stores.audit().await;
    assert_eq!(facts.wallets.values().sum::<i64>(), 1_200);
    let unread = "SELECT COUNT(*) FROM dead_letters WHERE events IS NULL AND payload = 'this is \
         not MessagePack'";
    assert_eq!(stores.count(unread).await, expected);
    let (retried, printed) = dead_letters(stores, &["retry"]).await;
    assert!(!retried && printed == format!("0 applied, {expected} refused\n"), "{printed}");
    assert_eq!(letters(stores).await, expected);
}

async fn retry_keeps_newer_rows(world: TestWorld) {
    let (api, stores, user) = (&world.api, &world.stores, new_user());
    // A ledger that refuses an entry of 600, so the balance after it arrives late.
    let refuse = "ALTER TABLE wallet_entries ADD CONSTRAINT no_600 CHECK (amount <> 600)";
    sqlx::query(refuse).execute(&stores.mysql).await.unwrap();
    api.charge(&user, 600).await;
    eventually("the event is quarantined", || async { (letters(stores).await == 1).then_some(()) })
        .await;
    api.charge(&user, 50).await;
    stores.wait_until_idle().await;
    sqlx::query("ALTER TABLE wallet_entries DROP CONSTRAINT no_600")
        .execute(&stores.mysql)
        .await
        .unwrap();
    let (retried, printed) = dead_letters(stores, &["retry"]).await;
    assert!(retried, "{printed}");
    let facts = stores.audit().await;
    assert_eq!(facts.wallets.values().copied().collect::<Vec<_>>(), [650]);
    assert_eq!(stores.count("SELECT COUNT(*) FROM wallet_entries").await, 2);
}

async fn sequence_gap_stops_its_partition(world: TestWorld) {
    let (api, stores) = (&world.api, &world.stores);
    let user = new_user();
    let partition = usher::partition::PartitionCount::new(PARTITIONS)
        .unwrap()
        .of(user.parse::<usher::ids::UserId>().unwrap().slot())
        .get();
    api.charge(&user, 1).await;
    stores.audit().await;
    let mut redis = stores.redis().await;
    redis.ask(&["INCR", &stores.key(partition, "seq")]).await;
    api.charge(&user, 2).await;
    let elsewhere = eventually("another partition is written", || async {
        let other = new_user();
        api.charge(&other, 10).await;
        tokio::time::sleep(std::time::Duration::from_millis(150)).await;
        (stores.count("SELECT COUNT(*) FROM wallet_entries WHERE amount = 10").await >= 3)
            .then_some(())
    });
    elsewhere.await;
    assert_eq!(stores.count("SELECT COUNT(*) FROM wallet_entries WHERE amount = 2").await, 0);
    assert_eq!(letters(stores).await, 0, "a gap is not a dead letter");
    assert!(
        stores.backlog(&mut redis, partition).await > 0,
        "the entry behind the gap is not written"
    );
}

/// In a rolling upgrade with a schema change, an old instance may read entries of a newer one. It
/// leaves them in the outbox, so nothing is lost.
async fn event_of_a_newer_version_stays_in_the_outbox(world: TestWorld) {
    let (api, stores) = (&world.api, &world.stores);
    let user = new_user();
    api.charge(&user, 1).await;
    stores.audit().await;
    let slot = user.parse::<usher::ids::UserId>().unwrap().slot();
    let partition = usher::partition::PartitionCount::new(PARTITIONS).unwrap().of(slot).get();
    let (mut redis, outbox) = (stores.redis().await, stores.key(partition, "outbox"));
    let n = redis.ask(&["INCR", &stores.key(partition, "seq")]).await.int();
    redis.ask(&["XADD", &outbox, &format!("{n}-0"), "v2", "a future event"]).await;
    // Later events of the partition wait behind it, and requests are still answered. The other
    // partitions continue.
    api.charge(&user, 2).await;
    eventually("another partition is written", || async {
        api.charge(&new_user(), 10).await;
        (stores.count("SELECT COUNT(*) FROM wallet_entries WHERE amount = 10").await >= 3)
            .then_some(())
    })
    .await;
    assert_eq!(letters(stores).await, 0, "a newer event is not a dead letter");
    assert_eq!(stores.count("SELECT COUNT(*) FROM wallet_entries WHERE amount = 2").await, 0);
    let kept = redis.ask(&["XRANGE", &outbox, &format!("{n}-0"), &format!("{n}-0")]).await.list();
    assert_eq!(kept.len(), 1, "the entry is still in the outbox");
    assert!(
        redis.ask(&["XLEN", &outbox]).await.int() >= 2,
        "the following entries are still in the outbox"
    );
}
