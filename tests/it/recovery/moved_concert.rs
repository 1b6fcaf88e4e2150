//! Concerts and schedules that move to a queue of another partition: MySQL gets the changes of both
//! partitions in a harmless order, no seat has two owners, and a restore finds every record.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures::future::join_all;
use serde_json::{Value, json};
use sqlx::{MySql, Transaction};

use crate::recovery::restore::{durable, lose_redis, open_sale, queue_without_window};
use crate::support::world::{concert_definition, schedule_definition};
use crate::support::{
    ApiClient, CONCERT, SCHEDULE, TestStores, TestWorld, eventually, new_key, on_one_and_two,
};

on_one_and_two!(
    move_waits_until_mysql_has_the_old_queue,
    removed_schedule_waits_until_mysql_has_its_queue,
    seats_have_one_owner_while_the_concert_moves,
);

const PATH: &str = "/admin/concerts/show";

/// Creates a queue in another partition than [`CONCERT`]. Returns its name.
async fn queue_elsewhere(world: &TestWorld) -> String {
    let stores = &world.stores;
    let queue = (0..)
        .map(|n| format!("side{n}"))
        .find(|queue| stores.partition_of(queue) != stores.partition_of(CONCERT))
        .unwrap();
    world.put_queue(&queue, queue_without_window()).await;
    queue
}

fn concert_in(queue: &str) -> Value {
    let mut concert = concert_definition(10, 1_000);
    concert["queue_id"] = json!(queue);
    concert
}

/// Buys a seat. Returns the user, the reservation, and the key of the payment.
async fn buy(api: &ApiClient, queue: &str, seat: u32) -> (String, String, String) {
    let guest = api.active_user(queue).await;
    let key = new_key();
    api.charge(&guest.user, 5_000).await;
    let reservation = api.hold_seats(&guest.token, SCHEDULE, &[seat]).await;
    api.pay(&guest.token, &reservation, &key).await.expect(201);
    (guest.user, reservation, key)
}

async fn cancel(api: &ApiClient, user: &str, reservation: &str) {
    let path = format!("/v1/reservations/{reservation}/cancel");
    api.post(&path).user(user).key(&new_key()).send().await.expect(200);
}

/// Stops the writers at a partition: they skip a checkpoint that is locked.
async fn lock_checkpoint(stores: &TestStores, partition: u16) -> Transaction<'static, MySql> {
    let mut lock = stores.mysql.begin().await.unwrap();
    let select = "SELECT n FROM outbox_checkpoints WHERE partition_id = ? FOR UPDATE";
    sqlx::query(select).bind(partition).fetch_one(&mut *lock).await.unwrap();
    lock
}

async fn move_waits_until_mysql_has_the_old_queue(world: TestWorld) {
    world.put_show(10, 1_000).await;
    let side = queue_elsewhere(&world).await;
    let (api, stores) = (&world.api, &world.stores);
    let old = stores.partition_of(CONCERT);
    let (user, reservation, _) = buy(api, CONCERT, 1).await;
    api.put(PATH, &concert_in(&side)).await.problem(409, "in_use");
    stores.wait_until_written().await;

    // MySQL still has the seat as sold, and Redis has it as free.
    let lock = lock_checkpoint(stores, old).await;
    cancel(api, &user, &reservation).await;
    api.put(PATH, &concert_in(&side)).await.problem(409, "in_use");
    let guest = api.active_user(CONCERT).await;
    let held = api.hold_seats(&guest.token, SCHEDULE, &[1]).await;
    api.delete(&format!("/v1/reservations/{held}")).token(&guest.token).send().await.expect(204);
    lock.rollback().await.unwrap();
    stores.wait_until_written().await;

    // A change that MySQL refused is not in MySQL either.
    let letter = "INSERT INTO dead_letters (partition_id, n, version, payload, cause, buried_at) \
                  VALUES (?, 0, 'v1', '', 'test', UTC_TIMESTAMP(3))";
    sqlx::query(letter).bind(old).execute(&stores.mysql).await.unwrap();
    api.put(PATH, &concert_in(&side)).await.problem(409, "in_use");
    sqlx::query("DELETE FROM dead_letters").execute(&stores.mysql).await.unwrap();

    // With an idle writer the move succeeds at once.
    api.put(PATH, &concert_in(&side)).await.expect(200);
    buy(api, &side, 1).await;
    let facts = stores.audit().await;
    assert_eq!(facts.sold.len(), 1);
    assert_eq!(stores.count("SELECT COUNT(*) FROM dead_letters").await, 0);
}

async fn removed_schedule_waits_until_mysql_has_its_queue(world: TestWorld) {
    world.put_show(10, 1_000).await;
    let side = queue_elsewhere(&world).await;
    let (api, stores) = (&world.api, &world.stores);
    let (user, reservation, _) = buy(api, CONCERT, 1).await;
    stores.wait_until_written().await;
    let without = json!({"title": "The show", "schedules": []});
    let lock = lock_checkpoint(stores, stores.partition_of(CONCERT)).await;
    cancel(api, &user, &reservation).await;
    api.put(PATH, &without).await.problem(409, "in_use");
    // What stays in the queue needs no wait.
    api.put(PATH, &concert_definition(9, 2_000)).await.expect(200);
    lock.rollback().await.unwrap();
    stores.wait_until_written().await;

    api.put(PATH, &without).await.expect(200);
    let gala = json!({"title": "Gala", "queue_id": side,
        "schedules": [schedule_definition(10, 1_000)]});
    api.put("/admin/concerts/gala", &gala).await.expect(200);
    buy(api, &side, 1).await;
    let facts = stores.audit().await;
    assert_eq!(facts.sold.len(), 1);
    assert_eq!(stores.count("SELECT COUNT(*) FROM dead_letters").await, 0);
}

async fn seats_have_one_owner_while_the_concert_moves(world: TestWorld) {
    world.put_show(10, 1_000).await;
    let side = queue_elsewhere(&world).await;
    let (api, stores) = (&world.api, &world.stores);
    let queues = [CONCERT, side.as_str()];
    // By seat: whether a user was told that it is theirs.
    let owned = [const { AtomicBool::new(false) }; 2];
    let (held, running) = (AtomicUsize::new(0), AtomicUsize::new(4));
    let book = async |nth: usize| {
        let api = api.for_instance(nth % api.instances());
        for round in 0..12 {
            let guest = api.active_user(queues[nth % 2]).await;
            let at = round % 2;
            let answer = api.hold(&guest.token, SCHEDULE, &[u32::try_from(at).unwrap() + 1]).await;
            if answer.status != 201 {
                // The seat is taken, or the concert is in the other queue or on its way.
                assert!([403, 409, 503].contains(&answer.status), "{answer:?}");
                continue;
            }
            assert!(!owned[at].swap(true, Ordering::SeqCst), "the seat has an owner");
            held.fetch_add(1, Ordering::Relaxed);
            let id = answer.body["id"].as_str().unwrap();
            if round % 3 == 0 {
                api.charge(&guest.user, 1_000).await;
                api.pay(&guest.token, id, &new_key()).await.expect(201);
                owned[at].store(false, Ordering::SeqCst);
                cancel(&api, &guest.user, id).await;
            } else {
                owned[at].store(false, Ordering::SeqCst);
                let path = format!("/v1/reservations/{id}");
                api.delete(&path).user(&guest.user).send().await.expect(204);
            }
        }
        running.fetch_sub(1, Ordering::Relaxed);
    };
    let move_around = async {
        let mut moves = 0;
        while running.load(Ordering::Relaxed) > 0 {
            let answer = api.put(PATH, &concert_in(queues[(moves + 1) % 2])).await;
            match answer.status {
                200 => moves += 1,
                409 => {}
                _ => panic!("{answer:?}"),
            }
        }
        moves
    };
    let (moves, _) = tokio::join!(move_around, join_all((0..4).map(book)));
    assert!(held.into_inner() > 0, "users held seats while the concert moved");
    let last = queues[(moves + 1) % 2];
    eventually("the concert moves once more", || async {
        (api.put(PATH, &concert_in(last)).await.status == 200).then_some(())
    })
    .await;
    buy(api, last, 1).await;
    assert_eq!(stores.audit().await.sold.len(), 1);
    assert_eq!(stores.count("SELECT COUNT(*) FROM dead_letters").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restore_after_a_move_finds_every_record() {
    let world = TestWorld::on(TestStores::with_own_redis().await, 2).await;
    open_sale(&world, 10).await;
    let side = queue_elsewhere(&world).await;
    let (api, stores) = (&world.api, &world.stores);
    let (user, reservation, key) = buy(api, CONCERT, 1).await;
    cancel(api, &user, &reservation).await;
    let guest = api.active_user(CONCERT).await;
    let released = api.hold_seats(&guest.token, SCHEDULE, &[2]).await;
    let path = format!("/v1/reservations/{released}");
    api.delete(&path).token(&guest.token).send().await.expect(204);
    stores.wait_until_written().await;
    api.put(PATH, &concert_in(&side)).await.expect(200);
    buy(api, &side, 1).await;

    let again = async || {
        let body = json!({"reservation_id": reservation});
        let token = api.join(CONCERT, &user).await.body["token"].as_str().unwrap().to_owned();
        let answer = api.post("/v1/payments").token(&token).key(&key).json(&body).send().await;
        (answer.status, answer.body)
    };
    let replayed = again().await;
    let facts = stores.audit().await;
    assert_eq!((facts.reservations.len(), facts.sold.len()), (3, 1));
    let before = durable(stores).await;
    lose_redis(&world).await;
    assert_eq!(stores.audit().await, facts);
    assert_eq!(durable(stores).await, before);
    assert_eq!(again().await, replayed);
    let read = async |id: &str, user: &str| {
        let answer = api.get(&format!("/v1/reservations/{id}")).user(user).send().await;
        answer.expect(200)["status"].clone()
    };
    assert_eq!(read(&reservation, &user).await, "cancelled");
    assert_eq!(read(&released, &guest.user).await, "released");
}
