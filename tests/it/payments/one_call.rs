//! Payments in one call, where one Redis has all partitions: the same answers and records as in
//! steps, whatever happens to the call.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;
use serde::de::IgnoredAny;
use serde_json::json;

use crate::support::api::TestUser;
use crate::support::resp::RespClient;
use crate::support::servers::partition_of_user;
use crate::support::world::{concert_definition, fast_queue_settings};
use crate::support::{
    ApiClient, CONCERT, SCHEDULE, TestStores, TestWorld, UsherProcess, eventually, new_key,
    on_one_and_two,
};

on_one_and_two!(batch_answers_each_payment, one_user_pays_twice_at_once);

const PRICE: i64 = 1_000;

async fn open_sale(api: &ApiClient) {
    api.put("/admin/queues/show", &fast_queue_settings()).await.expect(200);
    api.put("/admin/concerts/show", &concert_definition(40, PRICE)).await.expect(200);
}

/// A user with a held seat.
async fn holder(api: &ApiClient, seat: u32, money: i64) -> (TestUser, String) {
    let guest = api.active_user(CONCERT).await;
    if money > 0 {
        api.charge(&guest.user, money).await;
    }
    let held = api.hold_seats(&guest.token, SCHEDULE, &[seat]).await;
    (guest, held)
}

/// The process dies before the call is sent, or when its reply has arrived. The repeated request
/// gets the answer to the first one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn process_dies_before_and_after_the_call() {
    for (point, replayed) in [("payment/pay.before", None), ("payment/pay.after", Some("true"))] {
        let stores = TestStores::new().await;
        let survivor = UsherProcess::start(&stores).await;
        let api = survivor.api();
        open_sale(&api).await;
        let (guest, held) = holder(&api, 1, PRICE).await;
        let victim = UsherProcess::start_failing(&stores, &format!("{point}=return(kill)")).await;
        let key = new_key();
        let lost = victim.api().payment(&guest.token, &held, &key).try_send().await;
        assert!(lost.is_err(), "{point}: the process still answered");
        let again = api.pay(&guest.token, &held, &key).await;
        assert_eq!(again.header("idempotency-replayed"), replayed, "{point}");
        assert_eq!(again.expect(201)["status"], "confirmed", "{point}");
        assert_eq!(api.balance(&guest.user).await, 0, "{point}");
        let facts = stores.audit().await;
        assert_eq!((facts.payments.len(), facts.sold.len()), (1, 1), "{point}");
    }
}

/// The names of the fields of a record.
async fn fields(
    redis: &mut RespClient,
    stores: &TestStores,
    (partition, name): (u16, &str),
) -> Vec<BTreeSet<String>> {
    let values = redis.ask(&["HVALS", &stores.key(partition, name)]).await.list();
    let names = values.into_iter().map(|value| {
        let record: BTreeMap<String, IgnoredAny> = rmp_serde::from_slice(&value.bytes()).unwrap();
        record.into_keys().collect()
    });
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

/// All rows of a table without ids and times.
async fn rows(stores: &TestStores, query: &str) -> Vec<String> {
    sqlx::query_scalar(sqlx::AssertSqlSafe(query.to_owned()))
        .fetch_all(&stores.mysql)
        .await
        .unwrap()
}

/// Everything that a payment leaves.
async fn traces(failpoints: &str) -> (Vec<Vec<BTreeSet<String>>>, Vec<Vec<String>>, Vec<i64>) {
    let stores = TestStores::new().await;
    let process = UsherProcess::start_failing(&stores, failpoints).await;
    let api = process.api();
    open_sale(&api).await;
    let (guest, held) = holder(&api, 1, 3 * PRICE).await;
    api.pay(&guest.token, &held, &new_key()).await.expect(201);
    stores.wait_until_idle().await;
    let (show, user) = (stores.partition_of(CONCERT), partition_of_user(&guest.user));
    let mut redis = stores.redis().await;
    let mut records = Vec::new();
    for place in [(show, "payments"), (show, "reservations"), (user, "idempotency")] {
        records.push(fields(&mut redis, &stores, place).await);
    }
    let mut tables = Vec::new();
    for query in [
        "SELECT CAST(CONCAT_WS(' ', status, attempt, amount, discount, balance_after, \
         queue_id) AS CHAR) FROM payments",
        "SELECT CAST(CONCAT_WS(' ', status, amount, paid, discount, concert_id, \
         schedule_id, payment_id IS NULL) AS CHAR) \
         FROM reservations",
        "SELECT CAST(CONCAT_WS(' ', kind, amount, balance, payment_id IS NULL, attempt, \
         reservation_id IS NULL) AS CHAR) FROM wallet_entries ORDER BY balance DESC",
    ] {
        tables.push(rows(&stores, query).await);
    }
    let queue = |name: &str| (show, format!("q:{CONCERT}:{name}"));
    let mut counts = Vec::new();
    for (command, (partition, name)) in [
        ("ZCARD", queue("due")),
        ("ZCARD", queue("holds")),
        ("ZCARD", queue("active")),
        ("HLEN", queue("admitted")),
        ("HLEN", queue("owners")),
        ("HLEN", queue("bought")),
        ("HLEN", (user, "wallet_ops".to_owned())),
        ("ZCARD", (user, "wallet_ops_due".to_owned())),
        ("ZCARD", (user, "idempotency_due".to_owned())),
        ("HLEN", (user, "tallies".to_owned())),
    ] {
        counts.push(redis.ask(&[command, &stores.key(partition, &name)]).await.int());
    }
    stores.audit().await;
    (records, tables, counts)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_call_leaves_what_the_steps_leave() {
    assert_eq!(traces("redis.many_servers=return").await, traces("").await);
}

/// Payments of one batch: some are plain, and each of the others gets the answer of the steps.
async fn batch_answers_each_payment(world: TestWorld) {
    world.put_show(40, PRICE).await;
    let api = &world.api;
    let (rich, poor) = (2 * PRICE, PRICE - 1);
    let mut guests = Vec::new();
    for seat in 1..=24 {
        guests.push(holder(api, seat, if seat % 6 == 1 { poor } else { rich }).await);
    }
    let keys: Vec<String> = guests.iter().map(|_| new_key()).collect();
    let pay = async |at: usize| {
        let (guest, held) = &guests[at];
        let held = match at % 6 {
            // Another user's reservation.
            1 => &guests[at - 1].1,
            // One that does not exist.
            2 => &uuid_like(held),
            _ => held,
        };
        let mut body = json!({"reservation_id": held});
        if at % 6 == 3 {
            body["expected_amount"] = json!(PRICE - 1);
        } else if at % 6 == 4 {
            body["expected_amount"] = json!(PRICE);
        }
        api.post("/v1/payments").token(&guest.token).key(&keys[at]).json(&body).send().await
    };
    for round in 0..2 {
        let answers = join_all((0..guests.len()).map(&pay)).await;
        for (at, answer) in answers.iter().enumerate() {
            match at % 6 {
                0 => drop(answer.problem(402, "insufficient_balance")),
                1 | 2 => drop(answer.problem(404, "not_found")),
                3 => drop(answer.problem(409, "amount_changed")),
                _ => {
                    assert_eq!(answer.expect(201)["balance_after"], rich - PRICE, "{at}");
                    let replayed = answer.header("idempotency-replayed");
                    assert_eq!(replayed, (round == 1).then_some("true"), "{at}");
                }
            }
        }
    }
    let facts = world.stores.audit().await;
    assert_eq!((facts.payments_that_are("confirmed"), facts.sold.len()), (8, 8));
}

/// A reservation id of the same hash slot that does not exist.
fn uuid_like(held: &str) -> String {
    let last = if held.ends_with('0') { '1' } else { '0' };
    format!("{}{last}", &held[..held.len() - 1])
}

/// The second payment of a user in a batch sees the balance after the first one.
async fn one_user_pays_twice_at_once(world: TestWorld) {
    world.put_show(40, PRICE).await;
    let api = &world.api;
    for round in 0..8 {
        let guest = api.active_user(CONCERT).await;
        let enough = round % 2 == 0;
        api.charge(&guest.user, if enough { 2 * PRICE } else { 2 * PRICE - 1 }).await;
        let seats = [4 * round + 1, 4 * round + 2];
        let held =
            join_all(seats.map(async |seat| api.hold_seats(&guest.token, SCHEDULE, &[seat]).await))
                .await;
        let paid = join_all(
            held.iter().map(|held| async { api.pay(&guest.token, held, &new_key()).await }),
        )
        .await;
        let confirmed = paid.iter().filter(|answer| answer.status == 201).count();
        assert_eq!(confirmed, if enough { 2 } else { 1 }, "{paid:?}");
        let refused = paid.iter().filter(|answer| answer.status != 201);
        refused.for_each(|answer| drop(answer.problem(402, "insufficient_balance")));
    }
    world.stores.audit().await;
}

/// Redis refuses the script: nothing is bound, and the same request pays later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_call_changes_nothing() {
    let world = TestWorld::on(TestStores::with_own_redis().await, 1).await;
    let (api, stores) = (&world.api, &world.stores);
    open_sale(api).await;
    let refusals: [(&[&str], &[&str]); 3] = [
        (&["CONFIG", "SET", "maxmemory", "1"], &["CONFIG", "SET", "maxmemory", "0"]),
        (&["REPLICAOF", "127.0.0.1", "1"], &["REPLICAOF", "NO", "ONE"]),
        (
            &["CONFIG", "SET", "min-replicas-to-write", "1"],
            &["CONFIG", "SET", "min-replicas-to-write", "0"],
        ),
    ];
    for (seat, (refuse, accept)) in (1..).zip(refusals) {
        let (guest, held) = holder(api, seat, PRICE).await;
        stores.wait_until_idle().await;
        let (key, mut redis) = (new_key(), stores.redis().await);
        let bound = stores.key(partition_of_user(&guest.user), "idempotency");
        let before = redis.ask(&["HLEN", &bound]).await.int();
        redis.ask(refuse).await;
        let refused = api.pay(&guest.token, &held, &key).await;
        assert!(refused.status >= 500, "{refuse:?}: {refused:?}");
        redis.ask(accept).await;
        assert_eq!(redis.ask(&["HLEN", &bound]).await.int(), before, "{refuse:?}");
        let paid = eventually("the payment is made", || async {
            let paid = api.pay(&guest.token, &held, &key).await;
            (paid.status == 201).then_some(paid)
        })
        .await;
        assert_eq!(paid.header("idempotency-replayed"), None, "{refuse:?}");
    }
    let facts = stores.audit().await;
    assert_eq!((facts.payments_that_are("confirmed"), facts.payments.len()), (3, 3));
}

/// A Redis without the scripts is verified first, then the waiting payments are made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forgotten_script_is_loaded_again() {
    let world = TestWorld::on(TestStores::with_own_redis().await, 1).await;
    let (api, stores) = (&world.api, &world.stores);
    open_sale(api).await;
    let guests = join_all((1..=20).map(|seat| holder(api, seat, PRICE))).await;
    stores.redis().await.ask(&["SCRIPT", "FLUSH"]).await;
    let paid = join_all(
        guests.iter().map(|(guest, held)| async { api.pay(&guest.token, held, &new_key()).await }),
    )
    .await;
    paid.iter().for_each(|answer| drop(answer.expect(201)));
    assert_eq!(stores.audit().await.payments_that_are("confirmed"), 20);
}

/// The partition of a wallet does not serve: the payments of its users wait or are refused. The
/// others of the same batch are made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wallet_in_a_fenced_partition_is_left_alone() {
    let world = TestWorld::on(TestStores::with_own_redis().await, 1).await;
    let (api, stores) = (&world.api, &world.stores);
    open_sale(api).await;
    let guests = join_all((1..=20).map(|seat| holder(api, seat, PRICE))).await;
    stores.wait_until_idle().await;
    let show = stores.partition_of(CONCERT);
    let mut fenced = guests.iter().map(|(guest, _)| partition_of_user(&guest.user));
    let fenced = fenced.find(|partition| *partition != show).unwrap();
    let fence = stores.key(fenced, "epoch");
    stores.redis().await.ask(&["SET", &fence, "fenced 7 0"]).await;
    let keys: Vec<String> = guests.iter().map(|_| new_key()).collect();
    let pay = async |at: usize| {
        let (guest, held) = &guests[at];
        api.pay(&guest.token, held, &keys[at]).await
    };
    let answers = join_all((0..guests.len()).map(&pay)).await;
    for (at, (guest, _)) in guests.iter().enumerate() {
        if partition_of_user(&guest.user) == fenced {
            let answer = eventually("the partition is restored", || async {
                Some(pay(at).await).filter(|answer| answer.status == 201)
            });
            assert_eq!(answer.await.body["balance_after"], 0);
        } else {
            answers[at].expect(201);
        }
    }
    let facts = stores.audit().await;
    assert_eq!((facts.payments_that_are("confirmed"), facts.sold.len()), (20, 20));
}
