//! The Redis user of Usher: it may do what Usher does and nothing else. All other tests run as this
//! user, so a missing permission shows there.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::json;

use crate::coupons::payments::coupon;
use crate::support::resp::{RespClient, RespValue};
use crate::support::servers::REDIS_USER;
use crate::support::{CONCERT, SCHEDULE, TestStores, TestWorld, eventually, new_key};

const FILE: &str = include_str!("../../../deploy/redis/users.acl");
/// Commands of the code beside the scripts (`src/redis`), and of the driver when it connects.
const BY_CODE: &str = "auth client|id ping quit info time wait command|info scan eval evalsha \
     script|exists script|load get set xrange xrevrange xlen xtrim \
                       hlen hget hgetall hmget hscan zcard zcount zscan zmscore";

fn granted() -> BTreeSet<String> {
    let user = FILE.lines().find(|line| line.starts_with("user usher ")).unwrap();
    user.split(' ').filter_map(|word| word.strip_prefix('+')).map(str::to_owned).collect()
}

#[tokio::test]
async fn acl_file_grants_only_the_used_commands() {
    assert!(FILE.starts_with("user default off\n"), "no other user may connect");
    assert!(!granted().iter().any(|word| word.starts_with('@')), "no command category");
    let mut redis = TestStores::new().await.redis().await;
    let mut used: BTreeSet<String> = BY_CODE.split_whitespace().map(str::to_owned).collect();
    let mut open = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("lua")];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let words = text
            .split('\'')
            .filter(|word| word.len() > 2 && word.bytes().all(|it| it.is_ascii_uppercase()));
        for word in words.collect::<BTreeSet<_>>() {
            // An option such as LIMIT is not a command.
            if redis.ask(&["COMMAND", "INFO", word]).await != RespValue::List(vec![RespValue::Nil])
            {
                used.insert(word.to_lowercase());
            }
        }
    }
    assert_eq!(granted(), used);
}

async fn as_usher(port: u16) -> RespClient {
    let mut redis = RespClient::connect(port).await;
    let (user, password) = REDIS_USER.split_once(':').unwrap();
    redis.ask(&["AUTH", user, password]).await;
    redis
}

#[tokio::test]
async fn redis_user_cannot_administer_redis_or_read_foreign_keys() {
    let stores = TestStores::with_own_redis().await;
    stores.redis().await.ask(&["SET", "foreign-key", "secret"]).await;
    let mut redis = as_usher(stores.redis_port).await;
    let own = stores.key(0, "seq");
    redis.ask(&["SET", &own, "1"]).await;
    for line in [
        "KEYS *",
        "FLUSHALL",
        "FLUSHDB",
        "CONFIG GET requirepass",
        "CONFIG SET dir /",
        "ACL LIST",
        "ACL SETUSER usher allcommands",
        "CLIENT LIST",
        "CLIENT KILL ID 1",
        "MONITOR",
        "SHUTDOWN NOSAVE",
        "REPLICAOF NO ONE",
        "BGREWRITEAOF",
        "MODULE LIST",
        "SCRIPT FLUSH",
        "SCRIPT KILL",
        "FUNCTION FLUSH",
        "SUBSCRIBE usher",
        "PUBLISH usher x",
        "SWAPDB 0 1",
        "SELECT 1",
        "RANDOMKEY",
        "GET foreign-key",
        "SET foreign-key x",
        "XADD foreign-key * a b",
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        refused(line, redis.try_command(&words).await);
    }
    for line in ["DEL", "EXPIRE 1", "DUMP", "RENAME x", "MIGRATE 127.0.0.1 1 0 1"] {
        let mut words: Vec<&str> = line.split(' ').collect();
        words.insert(1, &own);
        refused(line, redis.try_command(&words).await);
    }
    for call in ["'GET', 'foreign-key'", "'FLUSHALL'", "'PUBLISH', 'a', 'b'", "'DEL', KEYS[1]"] {
        let script = format!("return redis.call({call})");
        refused(call, redis.try_command(&["EVAL", &script, "1", &own]).await);
    }
    refused("without a password", {
        let mut anonymous = RespClient::connect(stores.redis_port).await;
        anonymous.try_command(&["AUTH", "usher", "guess"]).await
    });
}

fn refused(what: &str, reply: RespValue) {
    match reply {
        RespValue::Error(error)
            if ["NOPERM", "WRONGPASS", "ACL failure", "The user executing the script"]
                .iter()
                .any(|it| error.contains(it)) => {}
        other => panic!("{what}: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_refuses_no_command_of_usher() {
    let world = TestWorld::on(TestStores::with_own_redis().await, 1).await;
    world.put_show(10, 1_000).await;
    let (api, stores) = (&world.api, &world.stores);
    api.put("/admin/coupons/off", &coupon(100, 100)).await.expect(200);
    world.wait_on_every_instance("/v1/coupons/off", |_| true).await;
    let guest = api.active_user(CONCERT).await;
    api.charge(&guest.user, 5_000).await;
    let issue = api.post("/v1/coupons/off/issues").user(&guest.user).send().await.expect(201);
    let reservation = api.hold_seats(&guest.token, SCHEDULE, &[1, 2]).await;
    let body = json!({"reservation_id": reservation, "coupon_issue_id": issue["id"]});
    api.post("/v1/payments")
        .token(&guest.token)
        .key(&new_key())
        .json(&body)
        .send()
        .await
        .expect(201);
    let cancel = format!("/v1/reservations/{reservation}/cancel");
    api.post(&cancel).user(&guest.user).key(&new_key()).send().await.expect(200);
    stores.wait_until_idle().await;
    stores.lose_partition(stores.partition_of(CONCERT)).await;
    eventually("the lost partition is restored", async || {
        let ready = api.get("/readyz?strict=true").send().await;
        let joined = api.join(CONCERT, &guest.user).await;
        (ready.status == 200 && [200, 201].contains(&joined.status)).then_some(())
    })
    .await;
    let audit = api.admin_call(reqwest::Method::POST, "/admin/audit").send().await.expect(200);
    assert_eq!(audit["consistent"], true, "{audit}");
    let log = stores.redis().await.ask(&["ACL", "LOG"]).await.list();
    assert!(log.is_empty(), "Redis has refused {log:?}");
}
