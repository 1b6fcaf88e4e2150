//! The ledger of a wallet: entries in MySQL and entries that are still in Redis, each once.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{ApiClient, CONCERT, SCHEDULE, TestWorld, new_key, new_user, on_one_and_two};

on_one_and_two!(
    ledger_lists_all_kinds_newest_first,
    completed_entry_is_listed_immediately,
    ledger_is_complete_while_mysql_cannot_write,
    pages_are_consistent_or_refused,
);

async fn page(api: &ApiClient, user: &str, query: &str) -> Value {
    api.get(&format!("/v1/wallet/entries{query}")).user(user).send().await.expect(200)
}

fn column(page: &Value, name: &str) -> Vec<Value> {
    page["items"].as_array().unwrap().iter().map(|item| item[name].clone()).collect()
}

async fn ledger_lists_all_kinds_newest_first(world: TestWorld) {
    world.put_show(9, 3_000).await;
    let api = &world.api;
    let guest = api.active_user(CONCERT).await;
    assert_eq!(page(api, &guest.user, "").await, json!({"items": [], "next": null}));
    api.charge(&guest.user, 10_000).await;
    let used =
        api.post("/v1/wallet/uses").user(&guest.user).key(&new_key()).json(&json!({"amount": 500}));
    used.send().await.expect(201);
    let reservation = api.hold_seats(&guest.token, SCHEDULE, &[1]).await;
    let paid = api.pay(&guest.token, &reservation, &new_key()).await.expect(201);
    let path = format!("/v1/reservations/{reservation}/cancel");
    api.post(&path).user(&guest.user).key(&new_key()).send().await.expect(200);
    for _ in 0..2 {
        let all = page(api, &guest.user, "").await;
        assert_eq!(column(&all, "kind"), ["refund", "payment", "use", "charge"]);
        assert_eq!(column(&all, "amount"), [3_000, 3_000, 500, 10_000]);
        assert_eq!(column(&all, "balance"), [9_500, 6_500, 9_500, 10_000]);
        let payments = [&paid["id"], &paid["id"], &Value::Null, &Value::Null];
        assert_eq!(column(&all, "payment_id").iter().collect::<Vec<_>>(), payments);
        assert_eq!(all["next"], Value::Null);
        world.stores.wait_until_idle().await;
    }
}

async fn completed_entry_is_listed_immediately(world: TestWorld) {
    let api = &world.api;
    let user = new_user();
    for number in 1..=150 {
        let charged = api.charge_with_key(&user, number, &new_key()).await.expect(201);
        let newest = page(api, &user, "?limit=3").await;
        assert_eq!(newest["items"][0], charged, "the newest entry is first");
        if number > 3 {
            assert_eq!(column(&newest, "amount"), [number, number - 1, number - 2]);
            assert!(newest["next"].is_string());
        }
    }
}

async fn ledger_is_complete_while_mysql_cannot_write(world: TestWorld) {
    let api = &world.api;
    let user = new_user();
    for number in 1..=20 {
        api.charge(&user, number).await;
    }
    world.stores.wait_until_idle().await;
    // The writer cannot lock the checkpoints, so the following entries stay in Redis.
    let mut tx = world.stores.mysql.begin().await.unwrap();
    sqlx::query("SELECT n FROM outbox_checkpoints FOR UPDATE").fetch_all(&mut *tx).await.unwrap();
    for number in 21..=40 {
        api.charge(&user, number).await;
    }
    let first = page(api, &user, "?limit=15").await;
    let next = |page: &Value| format!("?limit=15&before={}", page["next"].as_str().unwrap());
    let second = page(api, &user, &next(&first)).await;
    // The entries in Redis are written between two pages.
    tx.rollback().await.unwrap();
    world.stores.wait_until_idle().await;
    let third = page(api, &user, &next(&second)).await;
    let amounts: Vec<_> =
        [&first, &second, &third].into_iter().flat_map(|page| column(page, "amount")).collect();
    let expected: Vec<_> = (1..=40).rev().map(Value::from).collect();
    assert_eq!((amounts, &third["next"]), (expected, &Value::Null));
}

async fn pages_are_consistent_or_refused(world: TestWorld) {
    let api = &world.api;
    let user = new_user();
    for query in
        ["?limit=0", "?limit=501", "?limit=x", "?before=x", "?before=-1", "?before=", "?page=2"]
    {
        let path = format!("/v1/wallet/entries{query}");
        api.get(&path).user(&user).send().await.problem(422, "invalid_request");
    }
    api.get("/v1/wallet/entries").send().await.problem(401, "unauthenticated");
    // While entries are added, a reader pages through the ledger without a gap or a duplicate.
    let writer = {
        let (api, user) = (api.clone(), user.clone());
        tokio::spawn(async move {
            for number in 1..=200 {
                api.charge(&user, number).await;
            }
        })
    };
    while !writer.is_finished() {
        let (mut seen, mut next) = (Vec::new(), String::new());
        loop {
            let page = page(api, &user, &format!("?limit=7{next}")).await;
            seen.extend(column(&page, "amount").iter().map(|amount| amount.as_i64().unwrap()));
            match page["next"].as_str() {
                Some(before) => next = format!("&before={before}"),
                None => break,
            }
        }
        let whole: BTreeSet<_> = seen.iter().copied().collect();
        assert_eq!(seen.len(), whole.len(), "no entry twice");
        assert!(
            seen.iter().rev().copied().eq(1..=i64::try_from(seen.len()).unwrap()),
            "no gap: {seen:?}"
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    writer.await.unwrap();
}
