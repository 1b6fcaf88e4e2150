//! The ledger of a wallet: what MySQL has and what it does not have yet, each once.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Api, NIGHT, SHOW, World, new_key, new_user, on_one_and_two};

on_one_and_two!(
    a_ledger_tells_all_kinds_newest_first,
    what_was_just_answered_is_in_the_list,
    nothing_is_missing_while_mysql_can_not_write,
    pages_are_sound_or_refused,
);

async fn page(api: &Api, user: &str, query: &str) -> Value {
    api.get(&format!("/v1/wallet/entries{query}")).user(user).send().await.expect(200)
}

fn column(page: &Value, name: &str) -> Vec<Value> {
    page["items"].as_array().unwrap().iter().map(|item| item[name].clone()).collect()
}

async fn a_ledger_tells_all_kinds_newest_first(world: World) {
    world.show(9, 3_000).await;
    let api = &world.api;
    let guest = api.active_guest(SHOW).await;
    assert_eq!(page(api, &guest.user, "").await, json!({"items": [], "next": null}));
    api.charge(&guest.user, 10_000).await;
    let used =
        api.post("/v1/wallet/uses").user(&guest.user).key(&new_key()).json(&json!({"amount": 500}));
    used.send().await.expect(201);
    let reservation = api.held(&guest.token, NIGHT, &[1]).await;
    api.pay(&guest.token, &reservation, &new_key()).await.expect(201);
    let path = format!("/v1/reservations/{reservation}/cancel");
    api.post(&path).user(&guest.user).key(&new_key()).send().await.expect(200);
    for _ in 0..2 {
        let all = page(api, &guest.user, "").await;
        assert_eq!(column(&all, "kind"), ["refund", "payment", "use", "charge"]);
        assert_eq!(column(&all, "amount"), [3_000, 3_000, 500, 10_000]);
        assert_eq!(column(&all, "balance"), [9_500, 6_500, 9_500, 10_000]);
        assert_eq!(all["next"], Value::Null);
        world.stores.at_rest().await;
    }
}

async fn what_was_just_answered_is_in_the_list(world: World) {
    let api = &world.api;
    let user = new_user();
    for number in 1..=150 {
        let charged = api.charge_as(&user, number, &new_key()).await.expect(201);
        let newest = page(api, &user, "?limit=3").await;
        assert_eq!(newest["items"][0], charged, "the list begins with what was just answered");
        if number > 3 {
            assert_eq!(column(&newest, "amount"), [number, number - 1, number - 2]);
            assert!(newest["next"].is_string());
        }
    }
}

async fn nothing_is_missing_while_mysql_can_not_write(world: World) {
    let api = &world.api;
    let user = new_user();
    for number in 1..=20 {
        api.charge(&user, number).await;
    }
    world.stores.at_rest().await;
    // The writer can't have the checkpoints, so what follows stays in Redis.
    let mut tx = world.stores.mysql.begin().await.unwrap();
    sqlx::query("SELECT n FROM outbox_checkpoints FOR UPDATE").fetch_all(&mut *tx).await.unwrap();
    for number in 21..=40 {
        api.charge(&user, number).await;
    }
    let first = page(api, &user, "?limit=15").await;
    let next = |page: &Value| format!("?limit=15&before={}", page["next"].as_str().unwrap());
    let second = page(api, &user, &next(&first)).await;
    // What was unwritten is written between two pages.
    tx.rollback().await.unwrap();
    world.stores.at_rest().await;
    let third = page(api, &user, &next(&second)).await;
    let amounts: Vec<_> =
        [&first, &second, &third].into_iter().flat_map(|page| column(page, "amount")).collect();
    let expected: Vec<_> = (1..=40).rev().map(Value::from).collect();
    assert_eq!((amounts, &third["next"]), (expected, &Value::Null));
}

async fn pages_are_sound_or_refused(world: World) {
    let api = &world.api;
    let user = new_user();
    for query in
        ["?limit=0", "?limit=501", "?limit=x", "?before=x", "?before=-1", "?before=", "?page=2"]
    {
        let path = format!("/v1/wallet/entries{query}");
        api.get(&path).user(&user).send().await.problem(422, "invalid_request");
    }
    api.get("/v1/wallet/entries").send().await.problem(401, "unauthenticated");
    // While others charge, a reader pages through everything without a gap or a double.
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
        assert_eq!(seen.len(), whole.len(), "no line twice");
        assert!(
            seen.iter().rev().copied().eq(1..=i64::try_from(seen.len()).unwrap()),
            "no gap: {seen:?}"
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    writer.await.unwrap();
}
