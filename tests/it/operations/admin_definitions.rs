//! Definitions over the admin API: reading them, optimistic locking, patches and deletion.

use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::coupons::payments::coupon;
use crate::support::api::ApiResponse;
use crate::support::world::{concert_definition, fast_queue_settings};
use crate::support::{
    ApiClient, CONCERT, SCHEDULE, TestWorld, eventually, new_key, new_user, on_one_and_two,
};

on_one_and_two!(
    definition_can_be_put_back,
    lists_have_pages,
    stale_change_is_refused,
    one_of_two_operators_wins,
    patch_changes_only_what_it_names,
    concert_in_use_is_not_deleted,
    issued_coupon_is_not_deleted,
    claimed_reward_is_not_deleted,
);

const KINDS: [&str; 4] = ["queues", "concerts", "coupons", "rewards"];

fn definition(kind: &str, name: &str) -> Value {
    match kind {
        "queues" => fast_queue_settings(),
        "concerts" => {
            let mut concert = concert_definition(10, 1_000);
            concert["schedules"][0]["id"] = json!(format!("{name}-night"));
            concert
        }
        "coupons" => coupon(100, 100),
        _ => json!({
            "title": "A reward", "starts_at": "2020-01-01T00:00:00Z",
            "ends_at": "2100-01-01T00:00:00Z", "reward": {"kind": "points", "amount": 100},
        }),
    }
}

/// A field of each kind of definition, and a value that is not its default.
fn changed_field(kind: &str) -> (&'static str, Value) {
    match kind {
        "queues" => ("claim_seconds", json!(77)),
        "concerts" => ("hold_seconds", json!(77)),
        "coupons" => ("total_quantity", json!(77)),
        _ => ("active", json!(false)),
    }
}

async fn get(api: &ApiClient, path: &str) -> ApiResponse {
    api.admin_call(Method::GET, path).send().await
}

async fn delete(api: &ApiClient, path: &str) -> ApiResponse {
    api.admin_call(Method::DELETE, path).send().await
}

async fn patch(api: &ApiClient, path: &str, patch: Value) -> ApiResponse {
    api.admin_call(Method::PATCH, path).json(&patch).send().await
}

fn etag(answer: &ApiResponse) -> String {
    answer.header("etag").unwrap_or_else(|| panic!("no ETag: {answer:?}")).to_owned()
}

async fn definition_can_be_put_back(world: TestWorld) {
    let api = &world.api;
    for kind in KINDS {
        let path = format!("/admin/{kind}/first");
        let made = api.put(&path, &definition(kind, "first")).await;
        let body = made.expect(200);
        assert_eq!(body["id"], "first", "{body}");
        for (field, value) in definition(kind, "first").as_object().unwrap() {
            if !value.is_string() && field != "schedules" {
                assert_eq!(body["definition"][field], *value, "{field}: {body}");
            }
        }
        for _ in 0..2 {
            let read = get(api, &path).await;
            assert_eq!(read.expect(200)["definition"], body["definition"]);
            assert_eq!(etag(&read), etag(&made), "{kind}");
        }
        let again = api.put(&path, &body["definition"]).await;
        assert_eq!(again.expect(200)["definition"], body["definition"]);
        assert_eq!(etag(&again), etag(&made), "{kind}");
        // Another definition with the same content has another ETag.
        let other = api.put(&format!("/admin/{kind}/second"), &definition(kind, "second")).await;
        other.expect(200);
        assert_ne!(etag(&other), etag(&made), "{kind}");
    }
    // Live figures change the answer and not the ETag.
    let before = etag(&get(api, "/admin/queues/first").await);
    let user = api.active_user("first").await;
    eventually("the user is counted", || async {
        let queue = get(api, "/admin/queues/first").await;
        assert_eq!(etag(&queue), before);
        (queue.body["active"] == 1).then_some(())
    })
    .await;
    let before = etag(&get(api, "/admin/concerts/first").await);
    let held = api.hold_seats(&user.token, "first-night", &[1]).await;
    api.charge(&user.user, 5_000).await;
    api.pay(&user.token, &held, &new_key()).await.expect(201);
    world.stores.wait_until_idle().await;
    let concert = get(api, "/admin/concerts/first").await;
    let dates = json!([{"id": "first-night", "total_seats": 10, "sold_seats": 1,
        "cancelled": false}]);
    assert_eq!((&concert.body["sold_seats"], &concert.body["schedules"]), (&json!(1), &dates));
    assert_eq!(etag(&concert), before);
    let before = etag(&get(api, "/admin/coupons/first").await);
    api.post("/v1/coupons/first/issues").user(&user.user).send().await.expect(201);
    let coupon = get(api, "/admin/coupons/first").await;
    assert_eq!(coupon.body["issued_quantity"], 1);
    assert_eq!(etag(&coupon), before);
    api.post("/v1/rewards/first/claims").user(&user.user).send().await.expect(201);
    world.stores.wait_until_idle().await;
    assert_eq!(get(api, "/admin/rewards/first").await.expect(200)["claimed_quantity"], 1);
}

async fn lists_have_pages(world: TestWorld) {
    let api = &world.api;
    let names = ["a", "b", "c", "d", "e"];
    for kind in KINDS {
        for name in names {
            api.put(&format!("/admin/{kind}/{name}"), &definition(kind, name)).await.expect(200);
        }
        let mut seen = Vec::new();
        let mut before = String::new();
        loop {
            let page = get(api, &format!("/admin/{kind}?limit=2{before}")).await.expect(200);
            let items = page["items"].as_array().unwrap();
            assert!(items.len() <= 2);
            for item in items {
                let id = item["id"].as_str().unwrap();
                let one = get(api, &format!("/admin/{kind}/{id}")).await.expect(200);
                assert_eq!(one["definition"], item["definition"]);
                seen.push(id.to_owned());
            }
            let Some(next) = page["next"].as_str() else { break };
            before = format!("&before={next}");
        }
        assert_eq!(seen, names, "{kind}");
    }
}

async fn stale_change_is_refused(world: TestWorld) {
    let api = &world.api;
    for kind in KINDS {
        let path = format!("/admin/{kind}/first");
        let body = definition(kind, "first");
        let put = |header: &str, value: &str| {
            api.admin_call(Method::PUT, &path).header(header, value).json(&body).send()
        };
        put("if-match", "*").await.problem(412, "precondition_failed");
        get(api, &path).await.problem(404, "not_found");
        let first = etag(&put("if-none-match", "*").await);
        put("if-none-match", "*").await.problem(412, "precondition_failed");
        let (field, value) = changed_field(kind);
        let change = json!({field: value});
        let patch = |tag: &str| {
            api.admin_call(Method::PATCH, &path).header("if-match", tag).json(&change).send()
        };
        let second = patch(&first).await;
        assert_eq!(second.expect(200)["definition"][field], value, "{kind}");
        let second = etag(&second);
        assert_ne!(first, second);
        for stale in [first.as_str(), "\"0\"", &format!("W/{second}")] {
            patch(stale).await.problem(412, "precondition_failed");
            put("if-match", stale).await.problem(412, "precondition_failed");
            let delete = api.admin_call(Method::DELETE, &path).header("if-match", stale);
            delete.send().await.problem(412, "precondition_failed");
        }
        assert_eq!(etag(&get(api, &path).await), second);
        for good in ["*".to_owned(), second.clone(), format!("{first}, {second}")] {
            assert_eq!(etag(&patch(&good).await), second, "{kind}: {good}");
        }
        put("if-match", "not quoted").await.problem(400, "malformed_request");
        let path = format!("/admin/{kind}/none");
        for call in [
            api.admin_call(Method::PATCH, &path).json(&change),
            api.admin_call(Method::DELETE, &path).header("if-match", "*"),
        ] {
            call.send().await.problem(404, "not_found");
        }
    }
    // The queue's concert has no seat in use.
    for path in ["/admin/concerts/first", "/admin/queues/first", "/admin/coupons/first"] {
        let tag = etag(&get(api, path).await);
        let deleted = api.admin_call(Method::DELETE, path).header("if-match", &tag).send().await;
        deleted.expect_text(204);
        get(api, path).await.problem(404, "not_found");
    }
}

async fn one_of_two_operators_wins(world: TestWorld) {
    let api = &world.api;
    for kind in KINDS {
        for round in 0..4 {
            let path = format!("/admin/{kind}/n{round}");
            let body = definition(kind, &format!("n{round}"));
            let creations = (0..4).map(|at| {
                let api = api.for_instance(at % api.instances());
                let call = api.admin_call(Method::PUT, &path).header("if-none-match", "*");
                call.json(&body).send()
            });
            let made = join_all(creations).await;
            assert_eq!(made.iter().filter(|it| it.status == 200).count(), 1, "{made:?}");
            let tag = etag(made.iter().find(|it| it.status == 200).unwrap());
            let field = if kind == "queues" { "message" } else { "title" };
            let changes = (0..4).map(|at| {
                let api = api.for_instance(at % api.instances());
                let call = api.admin_call(Method::PATCH, &path).header("if-match", &tag);
                call.json(&json!({field: format!("operator {at}")})).send()
            });
            let answers = join_all(changes).await;
            let winners: Vec<_> = answers.iter().filter(|it| it.status == 200).collect();
            assert_eq!(winners.len(), 1, "{answers:?}");
            for loser in answers.iter().filter(|it| it.status != 200) {
                loser.problem(412, "precondition_failed");
            }
            let stored = get(api, &path).await;
            assert_eq!(stored.body["definition"], winners[0].body["definition"]);
            assert_eq!(etag(&stored), etag(winners[0]));
        }
    }
}

async fn patch_changes_only_what_it_names(world: TestWorld) {
    let api = &world.api;
    for kind in KINDS {
        let path = format!("/admin/{kind}/first");
        let made = api.put(&path, &definition(kind, "first")).await.expect(200);
        let (field, value) = changed_field(kind);
        let patched = patch(api, &path, json!({field: value})).await.expect(200);
        let mut expected = made["definition"].clone();
        expected[field] = value.clone();
        assert_eq!(patched["definition"], expected, "{kind}");
        assert_eq!(get(api, &path).await.body["definition"], expected);
        if kind != "coupons" {
            let reset = patch(api, &path, json!({field: null})).await.expect(200);
            assert_eq!(reset["definition"], made["definition"], "{kind}");
        }
        let merge = api.admin_call(Method::PATCH, &path);
        let merge = merge.raw("application/merge-patch+json", json!({field: value}).to_string());
        assert_eq!(merge.send().await.expect(200)["definition"], expected);
        assert_eq!(patch(api, &path, json!({})).await.expect(200)["definition"], expected);
        for bad in [json!({"colour": null}), json!({"colour": 1}), json!({field: [1]})] {
            patch(api, &path, bad).await.problem(422, "invalid_request");
        }
        for content_type in ["text/plain", "application/vnd.usher+json", "application/xml"] {
            let call = api.admin_call(Method::PATCH, &path).raw(content_type, "{}");
            call.send().await.problem(415, "unsupported_media_type");
        }
        assert_eq!(get(api, &path).await.body["definition"], expected);
    }
    patch(api, "/admin/concerts/first", json!({"title": null}))
        .await
        .problem(422, "invalid_request");
    patch(api, "/admin/coupons/first", json!({"id": "second"}))
        .await
        .problem(422, "invalid_request");
    let page = json!({"page": {"accent_color": "#0055aa"}, "message": {"en": "Hello", "ko": "x"}});
    patch(api, "/admin/queues/first", page).await.expect(200);
    let change = json!({"page": {"event_name": "Night"}, "message": {"ko": null}});
    let queue = patch(api, "/admin/queues/first", change).await.expect(200);
    let definition = &queue["definition"];
    assert_eq!(definition["page"]["accent_color"], "#0055aa");
    assert_eq!(definition["page"]["event_name"], "Night");
    assert_eq!(definition["message"], json!({"en": "Hello"}));
    let colour = json!({"page": {"colour": null}});
    patch(api, "/admin/queues/first", colour).await.problem(422, "invalid_request");
}

async fn concert_in_use_is_not_deleted(world: TestWorld) {
    world.put_show(50, 1_000).await;
    let (api, path) = (&world.api, format!("/admin/concerts/{CONCERT}"));
    let (holder, buyer) = (api.active_user(CONCERT).await, api.active_user(CONCERT).await);
    let held = api.hold(&holder.token, SCHEDULE, &[3, 1]).await.expect(201);
    let bought = api.hold_seats(&buyer.token, SCHEDULE, &[2]).await;
    api.charge(&buyer.user, 1_000).await;
    let payment = api.pay(&buyer.token, &bought, &new_key()).await.expect(201);
    let in_use = json!([
        {"kind": "seat_held", "id": held["id"], "seats": [1, 3], "until": held["held_until"]},
        {"kind": "seat_sold", "id": bought, "seats": [2]},
    ]);
    assert_eq!(delete(api, &path).await.problem(409, "in_use")["in_use"], in_use);
    let smaller = api.put(&path, &concert_definition(2, 1_000)).await;
    assert_eq!(smaller.problem(409, "in_use")["in_use"][0]["seats"], json!([3]));
    // The sale goes on.
    let mut more = Vec::new();
    for seat in 4..30 {
        let user = api.active_user(CONCERT).await;
        more.push((api.hold_seats(&user.token, SCHEDULE, &[seat]).await, user));
    }
    let refused = delete(api, &path).await.problem(409, "in_use");
    assert_eq!(refused["in_use"].as_array().unwrap().len(), 20);
    for (reservation, user) in &more {
        let path = format!("/v1/reservations/{reservation}");
        api.delete(&path).user(&user.user).send().await.expect(204);
    }
    let held = format!("/v1/reservations/{}", held["id"].as_str().unwrap());
    api.delete(&held).user(&holder.user).send().await.expect(204);
    let cancel = api.post(&format!("/v1/reservations/{bought}/cancel")).user(&buyer.user);
    cancel.key(&new_key()).send().await.expect(200);
    delete(api, &path).await.expect_text(204);
    for at in 0..api.instances() {
        let api = api.for_instance(at);
        api.get(&format!("/v1/concerts/{CONCERT}")).send().await.problem(404, "not_found");
        get(&api, &path).await.problem(404, "not_found");
        let user = api.active_user(CONCERT).await;
        api.hold(&user.token, SCHEDULE, &[1]).await.problem(404, "not_found");
    }
    // What was sold can still be read.
    let path = format!("/v1/payments/{}", payment["id"].as_str().unwrap());
    let read = api.get(&path).user(&buyer.user).send().await.expect(200);
    assert_eq!(read["status"], "refunded");
    world.put_show(50, 2_000).await;
    let user = api.active_user(CONCERT).await;
    assert_eq!(api.hold(&user.token, SCHEDULE, &[1]).await.expect(201)["amount"], 2_000);
    world.stores.audit().await;
}

async fn issued_coupon_is_not_deleted(world: TestWorld) {
    let (api, path) = (&world.api, "/admin/coupons/spring");
    api.put(path, &coupon(100, 100)).await.expect(200);
    delete(api, path).await.expect_text(204);
    for at in 0..api.instances() {
        let api = api.for_instance(at);
        let issue = api.post("/v1/coupons/spring/issues").user(&new_user()).send().await;
        issue.problem(404, "not_found");
    }
    api.put(path, &coupon(100, 100)).await.expect(200);
    let issue = api.post("/v1/coupons/spring/issues").user(&new_user()).send().await.expect(201);
    let refused = delete(api, path).await.problem(409, "in_use");
    assert_eq!(refused["in_use"], json!([{"kind": "issue", "id": issue["id"]}]));
    api.post("/v1/coupons/spring/issues").user(&new_user()).send().await.expect(201);
    world.stores.audit().await;
}

async fn claimed_reward_is_not_deleted(world: TestWorld) {
    let (api, path) = (&world.api, "/admin/rewards/hello");
    api.put(path, &definition("rewards", "hello")).await.expect(200);
    delete(api, path).await.expect_text(204);
    for at in 0..api.instances() {
        let api = api.for_instance(at);
        let claim = api.post("/v1/rewards/hello/claims").user(&new_user()).send().await;
        claim.problem(404, "not_found");
    }
    api.put(path, &definition("rewards", "hello")).await.expect(200);
    let claim = api.post("/v1/rewards/hello/claims").user(&new_user()).send().await.expect(201);
    let refused = delete(api, path).await.problem(409, "in_use");
    assert_eq!(refused["in_use"], json!([{"kind": "claim", "id": claim["id"]}]));
    api.post("/v1/rewards/hello/claims").user(&new_user()).send().await.expect(201);
    world.stores.audit().await;
}
