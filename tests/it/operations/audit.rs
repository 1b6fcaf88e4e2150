//! The audit command: it finds nothing in consistent data, and finds each planted fault.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use sqlx::AssertSqlSafe;
use tokio::process::Command;

use crate::coupons::payments::{coupon, issue};
use crate::support::servers::{PARTITIONS, TestStores};
use crate::support::world::{concert_definition, schedule_definition};
use crate::support::{CONCERT, SCHEDULE, TestWorld, UsherProcess, new_key};

/// A fault: a script for a key in Redis, a statement for MySQL, and the checks that must find it.
struct PlantedFault {
    what: &'static str,
    key: Option<(u16, String, &'static str)>,
    sql: &'static [&'static str],
    seen_by: &'static [&'static str],
}

/// A concert with sold, held and cancelled seats, a coupon without quota left, a reward, facts and
/// a full queue.
async fn world_with_sale() -> TestWorld {
    let world = TestWorld::start(1).await;
    let api = &world.api;
    world
        .put_queue(
            CONCERT,
            json!({"promote_per_interval": 5, "interval_ms": 1_000, "max_active": 3}),
        )
        .await;
    world
        .put_concert(
            CONCERT,
            json!({"title": "The show", "schedules": [schedule_definition(40, 1_000)]}),
        )
        .await;
    let mut spring = coupon(500, 1_000);
    spring["total_quantity"] = json!(2);
    api.put("/admin/coupons/off", &spring).await.expect(200);
    let reward = json!({"title": "Hello", "starts_at": "2020-01-01T00:00:00Z",
        "ends_at": "2100-01-01T00:00:00Z",
        "active": true, "conditions": [], "reward": {"kind": "points", "amount": 7}});
    api.put("/admin/rewards/hello", &reward).await.expect(200);
    world.wait_on_every_instance("/v1/coupons/off", |_| true).await;
    world.wait_on_every_instance("/v1/rewards/hello", |_| true).await;
    for seat in 1..=4 {
        let guest = api.active_user(CONCERT).await;
        api.charge(&guest.user, 3_000).await;
        let reservation = api.hold_seats(&guest.token, SCHEDULE, &[seat]).await;
        let mut body = json!({"reservation_id": reservation});
        if seat == 1 {
            body["coupon_issue_id"] = json!(issue(api, &guest.user).await);
        }
        let paid =
            api.post("/v1/payments").token(&guest.token).key(&new_key()).json(&body).send().await;
        paid.expect(201);
        if seat == 2 {
            issue(api, &guest.user).await;
            api.post("/v1/rewards/hello/claims").user(&guest.user).send().await.expect(201);
            let path = format!("/admin/users/{}/facts", guest.user);
            api.put(&path, &json!({"login_days": 7})).await.expect(200);
        }
        if seat == 4 {
            let path = format!("/v1/reservations/{reservation}/cancel");
            api.post(&path).user(&guest.user).key(&new_key()).send().await.expect(200);
        }
    }
    // The queue is full, one active user holds a seat, and another user waits.
    let holder = api.active_user(CONCERT).await;
    api.hold_seats(&holder.token, SCHEDULE, &[10]).await;
    api.active_user(CONCERT).await;
    api.active_user(CONCERT).await;
    api.join_new_user(CONCERT).await;
    world
}

fn faults(stores: &TestStores) -> Vec<PlantedFault> {
    let at = stores.partition_of(CONCERT);
    let queue = |name: &str| Some(format!("q:{CONCERT}:{name}"));
    let seats = format!("s:{SCHEDULE}:seats");
    let of_coupon = stores.partition_of("off");
    let redis = |what, (place, key, script): (u16, Option<String>, &'static str), seen_by| {
        PlantedFault { what, key: key.map(|key| (place, key, script)), sql: &[], seen_by }
    };
    let mysql = |what, sql, seen_by| PlantedFault { what, key: None, sql, seen_by };
    let mut faults = vec![
        mysql(
            "a seat sold twice",
            &["INSERT INTO reservations (id, user_id, queue_id, concert_id, schedule_id, seats, \
                     amount, status, held_until, created_at, updated_at) \
               SELECT UNHEX(REPLACE(UUID(), '-', '')), user_id, queue_id, concert_id, \
               schedule_id, seats, amount, \
               status, held_until, created_at, updated_at FROM reservations WHERE status = \
               'confirmed' LIMIT 1"],
            &["reservations"],
        ),
        mysql(
            "a seat's row is missing",
            &["DELETE FROM reservation_seats LIMIT 1"],
            &["reservations", "seats"],
        ),
        mysql(
            "a reservation's row is missing",
            &["DELETE FROM reservations WHERE status = 'cancelled'"],
            &["reservations", "payments"],
        ),
        mysql(
            "a payment's row is missing",
            &["DELETE FROM payments WHERE status = 'confirmed' AND coupon_id IS NULL LIMIT 1"],
            &["reservations", "payments", "ledgers", "money"],
        ),
        mysql(
            "two payments for one seat",
            &["INSERT INTO payments (id, reservation_id, user_id, queue_id, amount, discount, \
                     status, reason, attempt, balance_after, created_at, settled_at) \
               SELECT UNHEX(REPLACE(UUID(), '-', '')), reservation_id, user_id, queue_id, amount, \
               discount, status, reason, attempt, balance_after, \
               created_at, settled_at FROM payments WHERE status = 'confirmed' AND coupon_id IS \
               NULL LIMIT 1"],
            &["reservations", "ledgers", "money"],
        ),
        mysql(
            "a payment without debit",
            &["DELETE FROM wallet_entries WHERE kind = 'payment' LIMIT 1"],
            &["ledgers", "money"],
        ),
        mysql(
            "a payment without an end",
            &["UPDATE payments SET status = 'pending' WHERE status = 'refunded'"],
            &["payments"],
        ),
        mysql(
            "money minted in the ledger",
            &["UPDATE wallet_entries SET amount = amount + 5, balance = balance + 5 WHERE kind \
                     = 'charge' LIMIT 1"],
            &["ledgers", "money"],
        ),
        mysql(
            "money minted in a wallet",
            &["UPDATE wallets SET balance = balance + 5 LIMIT 1"],
            &["wallets", "ledgers", "money"],
        ),
        mysql(
            "a wrong paid total in a wallet",
            &["UPDATE wallets SET paid_total = paid_total + 5 LIMIT 1"],
            &["ledgers"],
        ),
        mysql(
            "a wallet is missing",
            &["DELETE FROM wallets LIMIT 1"],
            &["wallets", "ledgers", "money"],
        ),
        mysql(
            "an issue beyond the quota",
            &["INSERT INTO coupon_issues (id, coupon_id, user_id, issued_at) VALUES \
                     (UNHEX(REPLACE(UUID(), '-', '')), 'off', UNHEX(REPLACE(UUID(), '-', '')), \
                     UTC_TIMESTAMP(3))"],
            &["coupons"],
        ),
        mysql(
            "a use that MySQL lacks",
            &["UPDATE coupon_issues SET used_at = NULL, payment_id = NULL"],
            &["coupons", "payments"],
        ),
        mysql(
            "a reward without a claim",
            &["UPDATE reward_claims SET status = 'failed'"],
            &["rewards", "ledgers"],
        ),
        mysql(
            "facts that differ",
            &["UPDATE user_facts SET facts = '{\"login_days\": 8}'"],
            &["facts"],
        ),
        mysql(
            "a promotion out of order",
            &["INSERT INTO promotions SELECT partition_id, n + 1000000, idx, queue_id, \
                     from_score - 1, to_score - 1, count, promoted_at, rate_limit, rate_interval_ms \
                     FROM promotions ORDER BY n DESC LIMIT 1"],
            &["promotions"],
        ),
        mysql(
            "promotions beyond the rate",
            &["UPDATE promotions SET count = count + 5 ORDER BY n DESC LIMIT 1"],
            &["promotions"],
        ),
        redis(
            "a sold seat has another owner",
            (at, Some(seats.clone()), "redis.call('HSET', KEYS[1], 2, string.rep('x', 16) .. 's')"),
            &["reservations", "seats"],
        ),
        redis(
            "a sold seat is free",
            (at, Some(seats.clone()), "redis.call('HDEL', KEYS[1], 3)"),
            &["reservations", "seats"],
        ),
        redis(
            "a free seat is sold",
            (
                at,
                Some(seats.clone()),
                "redis.call('HSET', KEYS[1], 30, string.rep('x', 16) .. 's')",
            ),
            &["seats"],
        ),
        redis(
            "a seat is held without a reservation",
            (
                at,
                Some(seats.clone()),
                "redis.call('HSET', KEYS[1], 31, string.rep('x', 16) .. '99999999999999')",
            ),
            &["seats"],
        ),
        redis(
            "a held seat is not marked",
            (at, Some(seats), "redis.call('HDEL', KEYS[1], 10)"),
            &["reservations"],
        ),
        redis(
            "more seats are counted than sold",
            (at, queue("sales"), "redis.call('HINCRBY', KEYS[1], 'sold', 1)"),
            &["seats"],
        ),
        redis(
            "a reservation of another user",
            (
                at,
                Some("reservations".to_owned()),
                "local all = redis.call('HGETALL', KEYS[1]) for i = 2, #all, 2 do local r = \
                     cmsgpack.unpack(all[i]) if r.status == 'confirmed' then \
             r.user = string.rep('x', 16) redis.call('HSET', KEYS[1], all[i - 1], \
             cmsgpack.pack(r)) return end end",
            ),
            &["reservations"],
        ),
        redis(
            "a payment that never ends",
            (
                at,
                Some("payments".to_owned()),
                "local all = redis.call('HGETALL', KEYS[1]) local p = cmsgpack.unpack(all[2]) \
                     p.state, p.at = 'pending', p.at - 120000 \
             redis.call('HSET', KEYS[1], all[1], cmsgpack.pack(p))",
            ),
            &["payments"],
        ),
        redis(
            "a user both waits and is active",
            (
                at,
                queue("active"),
                "local user = redis.call('ZRANGE', string.gsub(KEYS[1], 'active', 'waiting'), 0, \
                     0)[1] redis.call('ZADD', KEYS[1], 99999999999999, user)",
            ),
            &["places", "capacity"],
        ),
        redis(
            "more users are active than allowed",
            (
                at,
                queue("active"),
                "redis.call('ZADD', KEYS[1], 99999999999999, string.rep('x', 16))",
            ),
            &["capacity", "places"],
        ),
        redis(
            "an issue that MySQL lacks",
            (
                of_coupon,
                Some("c:off:issues".to_owned()),
                "redis.call('HSET', KEYS[1], string.rep('x', 16), string.rep('y', 16) .. \
                     '1700000000000')",
            ),
            &["coupons"],
        ),
        redis(
            "another generation",
            (0, Some("epoch".to_owned()), "redis.call('SET', KEYS[1], 7)"),
            &["partitions"],
        ),
        redis(
            "an entry is missing",
            (0, Some("seq".to_owned()), "redis.call('INCR', KEYS[1])"),
            &["partitions"],
        ),
        redis(
            "a stale Redis",
            (at, Some("seq".to_owned()), "redis.call('DECR', KEYS[1])"),
            &["partitions"],
        ),
    ];
    for place in 0..PARTITIONS {
        faults.push(PlantedFault {
            what: "a balance that MySQL does not know",
            key: Some((
                place,
                "wallets".to_owned(),
                "redis.call('HSET', KEYS[1], string.rep('x', 16), '5')",
            )),
            sql: &[],
            seen_by: &["wallets", "money"],
        });
    }
    faults
}

async fn audit(stores: &TestStores) -> BTreeSet<String> {
    let report = stores.audit_command(Duration::from_millis(700)).await;
    assert_eq!(report.consistent, report.checks.iter().all(|check| check.ok));
    report.checks.iter().filter(|check| !check.ok).map(|check| check.name.to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_planted_fault_is_found() {
    let stores = world_with_sale().await.stop().await;
    assert_eq!(audit(&stores).await, BTreeSet::new(), "no violation yet");
    let mut failures = Vec::new();
    for fault in faults(&stores) {
        let mut redis = stores.redis().await;
        let undo = match &fault.key {
            None => None,
            Some((partition, name, script)) => {
                let key = stores.key(*partition, name);
                let before = redis.ask(&["COPY", &key, "before", "REPLACE"]).await.int();
                redis.ask(&["EVAL", script, "1", &key]).await;
                Some((key, before == 1))
            }
        };
        let table = fault.sql.first().map(|sql| {
            let word = if sql.starts_with("UPDATE") { 1 } else { 2 };
            sql.split_whitespace().nth(word).unwrap()
        });
        if let Some(table) = table {
            let copy = format!("CREATE TABLE before_ AS SELECT * FROM {table}");
            sqlx::query(AssertSqlSafe(copy)).execute(&stores.mysql).await.unwrap();
        }
        for sql in fault.sql {
            let done = sqlx::query(*sql).execute(&stores.mysql).await.unwrap();
            assert!(done.rows_affected() > 0, "{}: {sql}", fault.what);
        }
        let seen = audit(&stores).await;
        let expected: BTreeSet<String> =
            fault.seen_by.iter().map(|name| (*name).to_owned()).collect();
        if seen != expected {
            failures.push(format!("{}: found by {seen:?}, expected {expected:?}", fault.what));
        }
        if let Some((key, was_there)) = undo {
            let undo: &[&str] =
                if was_there { &["COPY", "before", &key, "REPLACE"] } else { &["DEL", &key] };
            redis.ask(undo).await;
            redis.ask(&["DEL", "before"]).await;
        }
        if let Some(table) = table {
            let columns: Vec<String> = sqlx::query_scalar(
                "SELECT COLUMN_NAME FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = \
                     DATABASE() AND TABLE_NAME = ? AND EXTRA NOT LIKE '%GENERATED%'",
            )
            .bind(table)
            .fetch_all(&stores.mysql)
            .await
            .unwrap();
            let columns = columns.join(", ");
            for sql in [
                format!("DELETE FROM {table}"),
                format!("INSERT INTO {table} ({columns}) SELECT {columns} FROM before_"),
                "DROP TABLE before_".to_owned(),
            ] {
                sqlx::query(AssertSqlSafe(sql)).execute(&stores.mysql).await.unwrap();
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_eq!(audit(&stores).await, BTreeSet::new(), "everything is consistent again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn audit_command_reports_findings_by_exit_code() {
    let stores = world_with_sale().await.stop().await;
    let run = async || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_usher"));
        command
            .arg("audit")
            .env("USHER_REDIS_URL", stores.redis_url())
            .env("USHER_MYSQL_URL", &stores.mysql_url);
        command
            .env("USHER_PARTITIONS", PARTITIONS.to_string())
            .env("USHER_KEY_PREFIX", &stores.prefix);
        let output = command.output().await.unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, said) = run().await;
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.ends_with("\nconsistent\n") && said.contains("with nothing in progress"),
        "{said}"
    );
    sqlx::query("UPDATE wallets SET balance = balance + 5 LIMIT 1")
        .execute(&stores.mysql)
        .await
        .unwrap();
    let (code, said) = run().await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.ends_with("\nnot consistent\n") && said.contains("FAULT wallets"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn audit_under_load_finds_nothing() {
    let stores = TestStores::new().await;
    // An audit takes time on a busy machine.
    let patience = [("USHER_REQUEST_TIMEOUT_MS", "60000".to_owned())];
    let process = UsherProcess::start_with(&stores, &patience).await;
    let api = crate::support::ApiClient::new(vec![[process.public.clone(), process.admin.clone()]]);
    api.put("/admin/queues/show", &crate::support::world::fast_queue_settings()).await.expect(200);
    api.put("/admin/concerts/show", &concert_definition(400, 1_000)).await.expect(200);
    let buying = async {
        let buyers = (1..=400_u32).map(async |seat| {
            tokio::time::sleep(Duration::from_millis(u64::from(seat) * 5)).await;
            let guest = api.active_user(CONCERT).await;
            api.charge(&guest.user, 3_000).await;
            let reservation = api.hold_seats(&guest.token, SCHEDULE, &[seat]).await;
            api.pay(&guest.token, &reservation, &new_key()).await.expect(201);
        });
        futures::future::join_all(buyers).await;
    };
    let auditing = async {
        let mut wrong = Vec::new();
        for _ in 0..4 {
            let answer =
                api.admin_call(reqwest::Method::POST, "/admin/audit").send().await.expect(200);
            let checks = answer["checks"].as_array().unwrap();
            let faults: Vec<_> =
                checks.iter().filter(|check| check["ok"] != true).cloned().collect();
            assert_eq!(answer["consistent"], faults.is_empty(), "{answer}");
            wrong.extend(faults);
        }
        wrong
    };
    let (_, wrong) = tokio::join!(buying, auditing);
    assert!(wrong.is_empty(), "{wrong:?}");
    stores.audit().await;
}
