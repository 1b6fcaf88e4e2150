//! The whole journey: from a place in the queue to rows in MySQL.

use serde_json::json;

use crate::support::{CONCERT, SCHEDULE, TestWorld, eventually, new_key, on_one_and_two};

on_one_and_two!(whole_journey_reaches_mysql, used_token_still_reads_its_purchase);

async fn whole_journey_reaches_mysql(world: TestWorld) {
    world.put_show(50, 7_000).await;
    let api = &world.api;

    let user = crate::support::new_user();
    let ticket = api.join(CONCERT, &user).await.expect(201);
    assert_eq!((&ticket["status"], &ticket["user_id"]), (&json!("active"), &json!(user)));
    assert_eq!(ticket["position"], json!(null));
    let token = ticket["token"].as_str().unwrap();

    let dates = api.get("/v1/concerts/show/schedules").token(token).send().await.expect(200);
    assert_eq!(dates["items"][0]["id"], SCHEDULE);
    assert_eq!(
        (&dates["items"][0]["total_seats"], &dates["items"][0]["available_seats"]),
        (&json!(50), &json!(50))
    );
    assert_eq!(api.seats(token, SCHEDULE).await, vec!["available"; 50]);

    let held = api.hold(token, SCHEDULE, &[12, 13]).await.expect(201);
    assert_eq!((&held["status"], &held["amount"]), (&json!("held"), &json!(14_000)));
    assert_eq!(held["concert_title"], "The show");
    assert_eq!(held["seats"][1], json!({"number": 13, "section": "A", "price": 7_000}));
    let reservation = held["id"].as_str().unwrap();
    let seats = api.seats(token, SCHEDULE).await;
    assert_eq!(
        (seats[10].as_str(), seats[11].as_str(), seats[12].as_str()),
        ("available", "held", "held")
    );

    api.charge(&user, 20_000).await;
    let key = new_key();
    let paid = api.pay(token, reservation, &key).await;
    assert_eq!(paid.header("idempotency-replayed"), None);
    let payment = paid.expect(201);
    assert_eq!((&payment["status"], &payment["paid"]), (&json!("confirmed"), &json!(14_000)));
    assert_eq!(payment["balance_after"], 6_000);
    assert_eq!(api.balance(&user).await, 6_000);

    // The purchase used the active slot, so the token is refused from now on.
    api.get("/v1/concerts/show/schedules")
        .token(token)
        .send()
        .await
        .problem(410, "queue_token_expired");
    api.poll(CONCERT, token).await.problem(410, "queue_token_expired");
    api.hold(token, SCHEDULE, &[14]).await.problem(410, "queue_token_expired");

    let count = "SELECT COUNT(*) FROM payments WHERE status = 'confirmed' AND amount = 14000 AND \
         balance_after = 6000";
    eventually("the payment's row is written", || async {
        (world.stores.count(count).await == 1).then_some(())
    })
    .await;
    let facts = world.stores.audit().await;
    assert_eq!(facts.sold.len(), 2);
    assert_eq!(
        facts.payments.values().next().unwrap().id.to_string(),
        payment["id"].as_str().unwrap()
    );
    assert_eq!(facts.reservations.values().next().unwrap().id.to_string(), reservation);
    assert_eq!(facts.wallets.values().collect::<Vec<_>>(), [&6_000]);
    assert_eq!(world.stores.count("SELECT COUNT(*) FROM wallet_entries").await, 2);
}

async fn used_token_still_reads_its_purchase(world: TestWorld) {
    world.put_show(10, 5_000).await;
    let api = &world.api;
    let guest = api.active_user(CONCERT).await;
    api.charge(&guest.user, 5_000).await;
    let reservation = api.hold_seats(&guest.token, SCHEDULE, &[1]).await;
    let key = new_key();
    let payment = api.pay(&guest.token, &reservation, &key).await.expect(201);

    // By user id, and by the token although it is used up.
    for path in [
        format!("/v1/reservations/{reservation}"),
        format!("/v1/payments/{}", payment["id"].as_str().unwrap()),
    ] {
        let by_user = api.get(&path).user(&guest.user).send().await.expect(200);
        let by_token = api.get(&path).token(&guest.token).send().await.expect(200);
        assert_eq!(by_user, by_token);
        assert_eq!((&by_user["status"], &by_user["amount"]), (&json!("confirmed"), &json!(5_000)));
        api.get(&path).send().await.problem(401, "unauthenticated");
        let stranger = api.active_user(CONCERT).await;
        api.get(&path).token(&stranger.token).send().await.problem(404, "not_found");
        api.get(&path).user(&stranger.user).send().await.problem(404, "not_found");
        api.get(&path)
            .user(&stranger.user)
            .token(&guest.token)
            .send()
            .await
            .problem(403, "wrong_user");
    }

    // A repeated request gets its first response, although the token is used up by then.
    let again = api.pay(&guest.token, &reservation, &key).await;
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(again.expect(201), payment);
    assert_eq!(api.balance(&guest.user).await, 0);

    api.delete(&format!("/v1/reservations/{reservation}"))
        .user(&guest.user)
        .send()
        .await
        .problem(409, "not_releasable");
}
