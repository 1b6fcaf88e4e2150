//! Two instances with a clock an hour ahead and an hour behind. No decision reads an instance's
//! clock, so nothing happens early, late or twice.

use chrono::{DateTime, TimeDelta, Utc};
use futures::future::join_all;
use serde_json::{Value, json};

use crate::support::skew::ClockSkew;
use crate::support::{ApiClient, CONCERT, SCHEDULE, TestStores, eventually, new_key, new_user};

/// The offset of both clocks, in seconds.
const CLOCK_OFFSET_SECONDS: i64 = 3_600;

fn time(value: &Value) -> DateTime<Utc> {
    value.as_str().unwrap().parse().unwrap()
}

/// Whether a time is this many seconds ahead, with a tolerance for a busy machine.
fn is_ahead(value: &Value, seconds: i64) -> bool {
    let ahead = (time(value) - Utc::now()).num_seconds();
    (seconds - 60..=seconds + 1).contains(&ahead)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clocks_that_are_an_hour_off_change_nothing() {
    let Some(skew) = ClockSkew::new() else { return };
    let stores = TestStores::new().await;
    let (ahead, behind) = tokio::join!(
        skew.start(&stores, CLOCK_OFFSET_SECONDS),
        skew.start(&stores, -CLOCK_OFFSET_SECONDS)
    );
    let addresses = [&ahead, &behind].map(|it| [it.public.clone(), it.admin.clone()]);
    let api = ApiClient::new(addresses.to_vec());
    let both = [api.for_instance(0), api.for_instance(1)];

    // The opening: the queue accepts joins, admits no user before its time, and keeps the seed
    // until then.
    let opens = Utc::now() + TimeDelta::seconds(4);
    let settings = json!({
        "promote_per_interval": 2, "interval_ms": 200, "max_active": 6, "active_seconds": 600,
        "order": "lottery", "opens_at": opens,
        "closes_at": opens + TimeDelta::minutes(30),
    });
    api.put("/admin/queues/show", &settings).await.expect(200);
    let show = json!({"title": "The show", "hold_seconds": 10,
        "schedules": [crate::support::world::schedule_definition(10, 1_000)]});
    api.put("/admin/concerts/show", &show).await.expect(200);
    for api in &both {
        eventually("each instance knows the queue", || async {
            let state = api.get("/v1/queues/show").send().await;
            (state.status == 200).then_some(())
        })
        .await;
    }
    let guests = join_all((0..12).map(async |_| api.join_new_user(CONCERT).await)).await;
    for api in &both {
        let state = api.get("/v1/queues/show").send().await.expect(200);
        if Utc::now() < opens {
            assert_eq!(
                (&state["mode"], &state["active"]),
                (&json!("prequeue"), &json!(0)),
                "{state}"
            );
            assert_eq!(state["lottery"]["seed"], json!(null));
        }
    }
    // A poll claims the slot, so the first six users keep their slots for ten minutes by the clock
    // of Redis.
    let admitted = eventually("six users are admitted", || async {
        let asked = guests
            .iter()
            .map(async |guest| (guest, api.poll(CONCERT, &guest.token).await.expect(200)));
        let active =
            join_all(asked).await.into_iter().filter(|(_, ticket)| ticket["status"] == "active");
        let admitted: Vec<_> = active.collect();
        assert!(admitted.len() <= 6);
        (admitted.len() == 6).then_some(admitted)
    })
    .await;
    assert!(
        Utc::now() >= opens - TimeDelta::milliseconds(50),
        "no user is admitted before the opening"
    );
    for (guest, ticket) in &admitted {
        assert!(is_ahead(&ticket["active_until"], 600), "{ticket}");
        for api in &both {
            let again = api.wait_until_active(CONCERT, guest).await;
            assert_eq!(again["active_until"], ticket["active_until"]);
        }
    }

    // A hold lasts its ten seconds on both instances, and is over on both.
    let (first, second) = (admitted[0].0, admitted[1].0);
    let held = both[0].hold(&first.token, SCHEDULE, &[1]).await.expect(201);
    assert!(
        time(&held["held_until"]) > Utc::now()
            && time(&held["held_until"]) < Utc::now() + TimeDelta::seconds(11)
    );
    both[1].hold(&second.token, SCHEDULE, &[1]).await.problem(409, "seat_taken");
    let taken = eventually("the hold expires", || async {
        let answer = both[1].hold(&second.token, SCHEDULE, &[1]).await;
        (answer.status == 201).then_some(answer.body)
    })
    .await;
    assert!(Utc::now() + TimeDelta::milliseconds(50) >= time(&held["held_until"]));
    let path = format!("/v1/reservations/{}", taken["id"].as_str().unwrap());
    both[0].delete(&path).token(&second.token).send().await.expect(204);

    // A coupon whose window is shorter than the offsets, and a purchase.
    let coupon = json!({
        "title": "Now", "total_quantity": 10, "discount_amount": 1, "min_available_amount": 0,
        "issue_starts_at": Utc::now() - TimeDelta::minutes(5),
        "issue_ends_at": Utc::now() + TimeDelta::minutes(5),
    });
    api.put("/admin/coupons/now", &coupon).await.expect(200);
    for (api, (guest, _)) in both.iter().zip(&admitted[2..]) {
        eventually("each instance knows the coupon", || async {
            (api.get("/v1/coupons/now").send().await.status == 200).then_some(())
        })
        .await;
        api.post("/v1/coupons/now/issues").user(&new_user()).send().await.expect(201);
        api.charge(&guest.user, 1_000).await;
        let seat = if guest.user == admitted[2].0.user { 2 } else { 3 };
        let reservation = api.hold_seats(&guest.token, SCHEDULE, &[seat]).await;
        api.pay(&guest.token, &reservation, &new_key()).await.expect(201);
    }
    let facts = stores.audit().await;
    assert_eq!(facts.payments_that_are("confirmed"), 2);

    // At most two in any 200 ms, whichever promoter.
    let promotions: Vec<(u32, chrono::NaiveDateTime)> =
        sqlx::query_as("SELECT count, promoted_at FROM promotions ORDER BY partition_id, n, idx")
            .fetch_all(&stores.mysql)
            .await
            .unwrap();
    for (nth, (_, at)) in promotions.iter().enumerate() {
        let within = promotions[nth..]
            .iter()
            .take_while(|(_, later)| (*later - *at).num_milliseconds() < 200);
        assert!(within.map(|(count, _)| count).sum::<u32>() <= 2, "{promotions:?}");
        assert!(*at >= opens.naive_utc() - TimeDelta::milliseconds(1), "{promotions:?}");
    }
    ahead.kill().await;
    behind.kill().await;
}
