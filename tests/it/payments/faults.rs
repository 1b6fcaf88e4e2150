//! Faults during a payment, one test for each kind of fault.
//!
//! | fault | where it is tested | it fails without |
//! |:--|:--|:--|
//! | a script fails midway | here: [`key_of_a_wrong_type_changes_nothing`], [`failed_confirmation_leaves_no_debit`] | the reads of every key before the first write (`confirm.lua`, `hold.lua`, `release.lua`) |
//! | a response is lost and the client repeats the request | `pay::repeated_payment_gets_its_first_response`, `seats::races_with_kill`, `kill` | |
//! | one idempotency key with two bodies | `pay::idempotency_key_is_bound_to_one_request` | |
//! | a hundred equal requests at once | here: [`hundred_repeated_requests_have_one_effect`] | `recall` in `lib/movement.lua` |
//! | the client disconnects | here: [`payment_completes_after_the_client_disconnects`] | the spawned task in `PaymentService::pay` |
//! | an instance is killed between two steps | `kill`, `seats::races_with_kill`, `cancel::sweep_finishes_an_interrupted_cancellation`; in every order: `tests/model` | |
//! | a debit arrives after its refund | here: [`debit_after_its_refund_is_refused`]; in every order: `tests/model` | the tombstone in `debit.lua` |
//! | the hold expires during its payment | here: [`hold_that_expires_during_its_payment_is_paid`] | the check of `paying` in `lib/seat.lua` |
//! | invalid or too large numbers | `bad_input::money`, `bad_input::public` | |
//! | too many seats, in a schedule or in a request | `seats::hold::schedule_of_ten_thousand_seats`, `seats::hold::one_hold_of_many_seats` | |
//! | a token of another key, user or queue | `bad_input::public::admission` on every route with a token | |
//! | another user's reservation, wallet or payment | `bad_input::public`, `bad_input::money` | |
//! | ids with braces, colons, NUL | `bad_input::cases` on every id | |

use std::collections::BTreeMap;

use futures::future::join_all;
use reqwest::Method;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use usher::redis::scripts;

use crate::coupons::payments::{COUPON, coupon, issue};
use crate::support::api::TestUser;
use crate::support::resp::RespClient;
use crate::support::servers::partition_of_user;
use crate::support::world::{fast_queue_settings, schedule_definition};
use crate::support::{
    ApiClient, ApiResponse, CONCERT, SCHEDULE, TestStores, TestWorld, eventually, new_key,
    new_user, on_one_and_two,
};

on_one_and_two!(
    key_of_a_wrong_type_changes_nothing,
    failed_confirmation_leaves_no_debit,
    hundred_repeated_requests_have_one_effect,
    payment_completes_after_the_client_disconnects,
    hold_that_expires_during_its_payment_is_paid,
);

/// A key with a type that its scripts do not expect, until it is [repaired](Self::mend).
struct CorruptedKey {
    key: String,
    aside: String,
}

impl CorruptedKey {
    async fn new(redis: &mut RespClient, key: String) -> Self {
        let aside = format!("{key}:aside");
        redis.try_command(&["RENAME", &key, &aside]).await;
        if key.ends_with(":seq") {
            redis.ask(&["HSET", &key, "x", "x"]).await;
        } else {
            redis.ask(&["SET", &key, "x"]).await;
        }
        Self { key, aside }
    }

    async fn mend(self, redis: &mut RespClient) {
        redis.ask(&["DEL", &self.key]).await;
        redis.try_command(&["RENAME", &self.aside, &self.key]).await;
    }
}

/// The full name of a key in the `KEYS:` line of a script.
fn key_of(stores: &TestStores, partition: u16, word: &str) -> String {
    let name = match word.split_once(':') {
        Some(("q", name)) => format!("q:{CONCERT}:{name}"),
        Some(("s", name)) => format!("s:{SCHEDULE}:{name}"),
        _ => word.to_owned(),
    };
    stores.key(partition, &name)
}

async fn dump_keys(redis: &mut RespClient, stores: &TestStores) -> BTreeMap<String, String> {
    redis.dump_keys(&stores.prefix).await
}

/// If any key of its script has the wrong type, a hold, a release and a charge fail before they
/// write.
async fn key_of_a_wrong_type_changes_nothing(world: TestWorld) {
    world.put_show(10, 1_000).await;
    let (api, stores) = (&world.api, &world.stores);
    let guest = api.active_user(CONCERT).await;
    api.charge(&guest.user, 10_000).await;
    let held = api.hold_seats(&guest.token, SCHEDULE, &[1]).await;
    let mut redis = stores.redis().await;
    let (show, user) = (stores.partition_of(CONCERT), partition_of_user(&guest.user));
    for (script, partition) in [
        (&scripts::SEATS_HOLD, show),
        (&scripts::SEATS_RELEASE, show),
        (&scripts::PAYMENT_PAY, show),
        (&scripts::WALLET_CHARGE, user),
        (&scripts::WALLET_USE, user),
    ] {
        // The fence is compared first, and missing definitions are published again. Neither is
        // tested here.
        let republished = ["epoch", "q:settings", "q:concerts"];
        let of_partition = script.keys().iter().map(|word| (word, partition));
        let of_wallet = script.each().iter().filter(|word| !word.contains(':'));
        let keys = of_partition.chain(of_wallet.map(|word| (word, user)));
        for (word, partition) in keys.filter(|(word, _)| !republished.contains(word)) {
            stores.wait_until_idle().await;
            let broken = CorruptedKey::new(&mut redis, key_of(stores, partition, word)).await;
            let before = dump_keys(&mut redis, stores).await;
            let answer = match script.name() {
                "seats/hold" => api.hold(&guest.token, SCHEDULE, &[2]).await,
                "seats/release" => {
                    api.delete(&format!("/v1/reservations/{held}")).user(&guest.user).send().await
                }
                "payment/pay" => api.pay(&guest.token, &held, &new_key()).await,
                "wallet/charge" => api.charge_with_key(&guest.user, 5, &new_key()).await,
                _ => {
                    let call = api.post("/v1/wallet/uses").user(&guest.user).key(&new_key());
                    call.json(&json!({"amount": 5})).send().await
                }
            };
            let after = dump_keys(&mut redis, stores).await;
            broken.mend(&mut redis).await;
            assert!(
                answer.status >= 500 || waits(script.name(), word),
                "{} {word}: {answer:?}",
                script.name()
            );
            if !waits(script.name(), word) {
                assert_eq!(after, before, "{} with {word} of a wrong type", script.name());
            }
        }
    }
    let payment = api.pay(&guest.token, &held, &new_key()).await.expect(201);
    assert_eq!(payment["status"], "confirmed");
    stores.audit().await;
}

/// Keys that a script reads only for users who are not active.
fn waits(script: &str, word: &str) -> bool {
    (script, word) == ("seats/hold", "q:waiting")
}

/// A payment with a coupon, which is made in steps, and its amount.
async fn pay_in_steps(
    api: &ApiClient,
    guest: &TestUser,
    held: &str,
    issue: &str,
    key: &str,
) -> ApiResponse {
    let body = json!({"reservation_id": held, "coupon_issue_id": issue});
    api.post("/v1/payments").token(&guest.token).key(key).json(&body).send().await
}

const DISCOUNTED: i64 = 999;

async fn put_coupon(world: &TestWorld) {
    world.api.put(&format!("/admin/coupons/{COUPON}"), &coupon(1_000 - DISCOUNTED, 0)).await;
    world.wait_on_every_instance(&format!("/v1/coupons/{COUPON}"), |_| true).await;
}

/// The debit succeeds and the seats cannot be sold: nothing of the confirmation is written, and the
/// money is refunded.
async fn failed_confirmation_leaves_no_debit(world: TestWorld) {
    world.put_show(20, 1_000).await;
    put_coupon(&world).await;
    let (api, stores) = (&world.api, &world.stores);
    let mut redis = stores.redis().await;
    let show = stores.partition_of(CONCERT);
    // Keys that `payment/begin` reads too would stop the payment before the debit.
    let before_it = ["epoch", "reservations", "payments", "q:due", "q:holds"];
    let words: Vec<_> =
        scripts::PAYMENT_CONFIRM.keys().iter().filter(|word| !before_it.contains(word)).collect();
    for (seat, word) in (1..).zip(&words) {
        let guest = api.active_user(CONCERT).await;
        api.charge(&guest.user, DISCOUNTED).await;
        let held = api.hold_seats(&guest.token, SCHEDULE, &[seat]).await;
        let issue = issue(api, &guest.user).await;
        stores.wait_until_idle().await;
        let broken = CorruptedKey::new(&mut redis, key_of(stores, show, word)).await;
        let sale = async |redis: &mut RespClient| {
            let mut all = redis.dump_keys(&stores.prefix).await;
            let names = ["sales", "bought", "owners", "active", "admitted", "seats"];
            all.retain(|key, _| names.iter().any(|name| key.contains(&format!(":{name}"))));
            all
        };
        let before = sale(&mut redis).await;
        let key = new_key();
        let pending = pay_in_steps(api, &guest, &held, &issue, &key).await;
        assert_eq!(
            (pending.status, &pending.body["status"]),
            (202, &json!("pending")),
            "{word}: {pending:?}"
        );
        // An outbox in the partition of the wallet stops the debit as well.
        let balance = api.balance(&guest.user).await;
        let same = partition_of_user(&guest.user) == show && ["seq", "outbox"].contains(word);
        assert_eq!(balance, if same { DISCOUNTED } else { 0 }, "{word}");
        assert_eq!(sale(&mut redis).await, before, "{word}");
        if seat == 1 {
            eventually("the metric reports its age", || async {
                let metrics =
                    api.keyless_admin_call(Method::GET, "/metrics").send().await.expect_text(200);
                let mut lines = metrics.lines();
                let age = lines
                    .find_map(|line| line.strip_prefix("usher_payments_pending_oldest_seconds "));
                age.and_then(|age| age.parse::<f64>().ok()).filter(|age| *age > 0.0)
            })
            .await;
        }
        broken.mend(&mut redis).await;
        let due = key_of(stores, show, "q:due");
        let now = "for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do \
             redis.call('ZADD', KEYS[1], 0, id) end";
        redis.ask(&["EVAL", now, "1", &due]).await;
        stores.wait_until_idle().await;
        let id = pending.body["id"].as_str().unwrap();
        let voided =
            api.get(&format!("/v1/payments/{id}")).user(&guest.user).send().await.expect(200);
        assert_eq!(voided["status"], "voided", "{word}");
        assert_eq!(api.balance(&guest.user).await, DISCOUNTED, "the money is refunded");
        let paid = pay_in_steps(api, &guest, &held, &issue, &key).await.expect(201);
        assert_eq!(paid["status"], "confirmed");
    }
    assert_eq!(stores.audit().await.payments_that_are("confirmed"), words.len());
}

async fn hundred_repeated_requests_have_one_effect(world: TestWorld) {
    world.put_show(10, 1_000).await;
    let api = &world.api;
    let guest = api.active_user(CONCERT).await;
    let (charged, paid) = (new_key(), new_key());
    let charges =
        join_all((0..100).map(|_| api.charge_with_key(&guest.user, 1_500, &charged))).await;
    let first = charges[0].expect(201);
    assert!(charges.iter().all(|twin| twin.expect(201) == first), "all responses are equal");
    let held = api.hold_seats(&guest.token, SCHEDULE, &[1]).await;
    let payments = join_all((0..100).map(|_| api.pay(&guest.token, &held, &paid))).await;
    let first = payments[0].expect(201);
    assert!(payments.iter().all(|twin| twin.expect(201) == first), "all responses are equal");
    assert_eq!(api.balance(&guest.user).await, 500);
    let facts = world.stores.audit().await;
    assert_eq!(facts.payments.len(), 1);
    assert_eq!(world.stores.count("SELECT COUNT(*) FROM wallet_entries").await, 2);
}

/// The client sends the request and closes the connection without reading the response.
async fn payment_completes_after_the_client_disconnects(world: TestWorld) {
    world.put_show(60, 1_000).await;
    let api = &world.api;
    let mut payers = Vec::new();
    for seat in 1..=60 {
        let guest = api.active_user(CONCERT).await;
        api.charge(&guest.user, 1_000).await;
        let held = api.hold_seats(&guest.token, SCHEDULE, &[seat]).await;
        payers.push((guest, held, new_key()));
    }
    for (guest, held, key) in &payers {
        let address = api.public().trim_start_matches("http://").to_owned();
        let body = format!(r#"{{"reservation_id":"{held}"}}"#);
        let request = format!(
            "POST /v1/payments HTTP/1.1\r\nhost: {address}\r\ncontent-type: \
                 application/json\r\nqueue-token: {}\r\n\
             idempotency-key: {key}\r\ncontent-length: {}\r\n\r\n{body}",
            guest.token,
            body.len()
        );
        let mut connection = TcpStream::connect(&address).await.unwrap();
        connection.write_all(request.as_bytes()).await.unwrap();
    }
    world.stores.wait_until_idle().await;
    let mut paid = 0;
    for (guest, held, key) in &payers {
        let path = format!("/v1/reservations/{held}");
        let reservation = api.get(&path).user(&guest.user).send().await.expect(200);
        // A request that the server never read leaves the hold and all the money. No user has half
        // of a payment.
        let confirmed = reservation["status"] == "confirmed";
        assert!(confirmed || reservation["status"] == "held", "{reservation}");
        assert_eq!(api.balance(&guest.user).await, if confirmed { 0 } else { 1_000 });
        paid += u32::from(confirmed);
        assert_eq!(api.pay(&guest.token, held, key).await.expect(201)["status"], "confirmed");
    }
    assert!(paid > 0, "the server read no request");
    let facts = world.stores.audit().await;
    assert_eq!(
        (facts.payments_that_are("confirmed"), facts.payments.len()),
        (60, 60),
        "no request was refused"
    );
}

#[tokio::test]
async fn debit_after_its_refund_is_refused() {
    let stores = TestStores::new().await;
    let mut redis = stores.redis().await;
    let user = new_user();
    let partition = partition_of_user(&user);
    redis.ask(&["SET", &stores.key(partition, "epoch"), "1"]).await;
    redis.ask(&["HSET", &stores.key(partition, "wallets"), "user", "5000"]).await;
    let mut call = async |script: &usher::redis::LuaScript, args: &[&str]| {
        let keys: Vec<String> =
            script.keys().iter().map(|word| key_of(&stores, partition, word)).collect();
        let count = keys.len().to_string();
        let mut words = vec!["EVAL", script.body(), &count];
        words.extend(keys.iter().map(String::as_str));
        words.push("1");
        words.extend(args);
        redis.ask(&words).await
    };
    // The first attempt is voided before its debit arrives, the second one after it.
    let refund = &scripts::WALLET_REFUND;
    assert_eq!(call(refund, &["user", "payment1", "entry-a", ""]).await.int(), 0);
    let mut debit = async |args: &[&str]| {
        let reply = call(&scripts::WALLET_DEBIT, args).await.list().remove(0).list();
        reply.into_iter().map(|word| word.int()).collect::<Vec<_>>()
    };
    assert_eq!(debit(&["user", "payment1", "entry-b", "3000", ""]).await[0], 3);
    assert_eq!(debit(&["user", "payment2", "entry-c", "3000", ""]).await, [1, 2_000]);
    assert_eq!(call(refund, &["user", "payment2", "entry-d", ""]).await.int(), 3_000);
    assert_eq!(call(refund, &["user", "payment2", "entry-e", ""]).await.int(), 0);
    let late = call(&scripts::WALLET_DEBIT, &["user", "payment2", "entry-f", "3000", ""]).await;
    assert_eq!(late.list().remove(0).list().remove(0).int(), 3);
}

/// A hold with a running payment stays until the payment's own deadline: no other user gets the
/// seat.
async fn hold_that_expires_during_its_payment_is_paid(world: TestWorld) {
    world.put_queue(CONCERT, fast_queue_settings()).await;
    world
        .put_concert(
            CONCERT,
            json!({"title": "brief", "hold_seconds": 1, "schedules": [schedule_definition(10,
                1_000)]}),
        )
        .await;
    put_coupon(&world).await;
    let (api, stores) = (&world.api, &world.stores);
    let (payer, other) = (api.active_user(CONCERT).await, api.active_user(CONCERT).await);
    let mut redis = stores.redis().await;
    // The wallet cannot respond until the hold has expired.
    let ops = key_of(stores, partition_of_user(&payer.user), "wallet_ops");
    let path = |id: &str| format!("/v1/reservations/{id}");
    api.charge(&payer.user, DISCOUNTED).await;
    let (issue, key) = (issue(api, &payer.user).await, new_key());
    let held = api.hold_seats(&payer.token, SCHEDULE, &[1]).await;
    let broken = CorruptedKey::new(&mut redis, ops).await;
    assert_eq!(pay_in_steps(api, &payer, &held, &issue, &key).await.status, 202);
    let lapses =
        api.get(&path(&held)).user(&payer.user).send().await.expect(200)["held_until"].clone();
    eventually("the hold has expired", || async {
        let later = api.hold_seats(&other.token, SCHEDULE, &[2]).await;
        let reservation = api.get(&path(&later)).user(&other.user).send().await.expect(200);
        api.delete(&path(&later)).user(&other.user).send().await.expect(204);
        (reservation["created_at"].as_str() > lapses.as_str()).then_some(())
    })
    .await;
    api.hold(&other.token, SCHEDULE, &[1]).await.problem(409, "seat_taken");
    let reservation = api.get(&path(&held)).user(&payer.user).send().await.expect(200);
    assert_eq!(reservation["status"], "paying");
    broken.mend(&mut redis).await;
    let paid = pay_in_steps(api, &payer, &held, &issue, &key).await.expect(201);
    assert_eq!(paid["status"], "confirmed");
    assert_eq!(stores.audit().await.payments_that_are("confirmed"), 1);
}
