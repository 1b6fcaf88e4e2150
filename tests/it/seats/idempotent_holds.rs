//! Holds with an idempotency key: a client that lost the reply repeats the request.

use futures::future::join_all;
use serde_json::{Value, json};

use crate::support::api::TestUser;
use crate::support::{
    ApiClient, ApiResponse, CONCERT, SCHEDULE, TestWorld, new_key, on_one_and_two,
};

on_one_and_two!(
    repeated_hold_returns_the_same_reservation,
    repeated_hold_shows_the_current_state,
    key_of_another_request_is_refused,
    refused_hold_may_be_repeated,
    concurrent_holds_with_one_key_make_one_reservation,
    taken_seats_name_those_of_the_caller,
);

const BOTH_PATHS: [&str; 2] = ["/v1/reservations", "/v1/reservations/best"];

fn body(path: &str) -> Value {
    if path.ends_with("/best") {
        json!({"schedule_id": SCHEDULE, "quantity": 2})
    } else {
        json!({"schedule_id": SCHEDULE, "seats": [4, 5]})
    }
}

async fn hold(
    api: &ApiClient,
    user: &TestUser,
    path: &str,
    key: &str,
    body: &Value,
) -> ApiResponse {
    api.post(path).token(&user.token).key(key).json(body).send().await
}

fn is_replayed(response: &ApiResponse) -> bool {
    response.header("idempotency-replayed") == Some("true")
}

async fn repeated_hold_returns_the_same_reservation(world: TestWorld) {
    world.put_show(10, 1_000).await;
    let api = &world.api;
    for path in BOTH_PATHS {
        let (user, key) = (api.active_user(CONCERT).await, new_key());
        let first = hold(api, &user, path, &key, &body(path)).await;
        assert!(!is_replayed(&first), "{path}");
        let reservation = first.expect(201);
        for at in 0..api.instances() {
            let again = hold(&api.for_instance(at), &user, path, &key, &body(path)).await;
            assert!(is_replayed(&again), "{path}");
            assert_eq!(again.expect(201), reservation, "{path}");
        }
        let held = api.seats(&user.token, SCHEDULE).await;
        assert_eq!(held.iter().filter(|status| *status == "held").count(), 2, "{path}");
        let id = reservation["id"].as_str().unwrap();
        api.delete(&format!("/v1/reservations/{id}")).token(&user.token).send().await.expect(204);
    }
}

async fn repeated_hold_shows_the_current_state(world: TestWorld) {
    world.put_show(10, 1_000).await;
    let api = &world.api;
    let (user, key) = (api.active_user(CONCERT).await, new_key());
    let path = BOTH_PATHS[0];
    let reservation = hold(api, &user, path, &key, &body(path)).await.expect(201);
    let id = reservation["id"].as_str().unwrap();
    api.delete(&format!("/v1/reservations/{id}")).token(&user.token).send().await.expect(204);
    let released = hold(api, &user, path, &key, &body(path)).await.expect(201);
    assert_eq!((released["id"].as_str(), &released["status"]), (Some(id), &json!("released")));

    let key = new_key();
    let paid = hold(api, &user, path, &key, &body(path)).await.expect(201);
    api.charge(&user.user, 10_000).await;
    api.pay(&user.token, paid["id"].as_str().unwrap(), &new_key()).await.expect(201);
    // The active slot is used up, but the answer to the earlier request stays.
    let again = hold(api, &user, path, &key, &body(path)).await.expect(201);
    assert_eq!((&again["id"], &again["status"]), (&paid["id"], &json!("confirmed")));
}

async fn key_of_another_request_is_refused(world: TestWorld) {
    world.put_show(10, 1_000).await;
    let api = &world.api;
    let (user, key) = (api.active_user(CONCERT).await, new_key());
    hold(api, &user, BOTH_PATHS[0], &key, &body(BOTH_PATHS[0])).await.expect(201);
    let other = json!({"schedule_id": SCHEDULE, "seats": [6]});
    hold(api, &user, BOTH_PATHS[0], &key, &other).await.problem(422, "idempotency_key_reused");
    let best = hold(api, &user, BOTH_PATHS[1], &key, &body(BOTH_PATHS[1])).await;
    best.problem(422, "idempotency_key_reused");
    let spaced = format!("{{ \"seats\": [4, 5],\n \"schedule_id\": \"{SCHEDULE}\" }}");
    let request = api.post(BOTH_PATHS[0]).token(&user.token).key(&key);
    let again = request.raw("application/json", spaced).send().await;
    assert!(is_replayed(&again), "whitespace and the order of keys do not matter");
}

async fn refused_hold_may_be_repeated(world: TestWorld) {
    world.put_show(10, 1_000).await;
    let api = &world.api;
    let (owner, user) = (api.active_user(CONCERT).await, api.active_user(CONCERT).await);
    let held = api.hold_seats(&owner.token, SCHEDULE, &[4]).await;
    let (path, key) = (BOTH_PATHS[0], new_key());
    hold(api, &user, path, &key, &body(path)).await.problem(409, "seat_taken");
    api.delete(&format!("/v1/reservations/{held}")).token(&owner.token).send().await.expect(204);
    let made = hold(api, &user, path, &key, &body(path)).await.expect(201);
    assert_eq!(hold(api, &user, path, &key, &body(path)).await.expect(201), made);
}

async fn concurrent_holds_with_one_key_make_one_reservation(world: TestWorld) {
    world.put_show(40, 1_000).await;
    let api = &world.api;
    for path in BOTH_PATHS {
        let (user, key) = (api.active_user(CONCERT).await, new_key());
        let calls = (0..20).map(|nth| {
            let (api, user, key) = (api.for_instance(nth % api.instances()), &user, &key);
            async move { hold(&api, user, path, key, &body(path)).await.expect(201) }
        });
        let made = join_all(calls).await;
        assert!(made.iter().all(|reservation| *reservation == made[0]), "{path}: {made:?}");
        let id = made[0]["id"].as_str().unwrap();
        api.delete(&format!("/v1/reservations/{id}")).token(&user.token).send().await.expect(204);
    }
}

async fn taken_seats_name_those_of_the_caller(world: TestWorld) {
    world.put_show(10, 1_000).await;
    let api = &world.api;
    let (first, second) = (api.active_user(CONCERT).await, api.active_user(CONCERT).await);
    api.hold_seats(&first.token, SCHEDULE, &[1]).await;
    api.hold_seats(&second.token, SCHEDULE, &[2]).await;
    let refused = api.hold(&first.token, SCHEDULE, &[1, 2, 3]).await.problem(409, "seat_taken");
    assert_eq!((&refused["seats"], &refused["yours"]), (&json!([1, 2]), &json!([1])));
    let refused = api.hold(&first.token, SCHEDULE, &[2]).await.problem(409, "seat_taken");
    assert_eq!((&refused["seats"], &refused["yours"]), (&json!([2]), &json!([])));
}
