//! Waiting users of whom no instance hears lose their places.

use serde_json::{Value, json};

use crate::recovery::restore::lose_redis;
use crate::support::resp::RespClient;
use crate::support::{
    ApiClient, CONCERT, EventStream, TestStores, TestWorld, eventually, new_user, on_one_and_two,
};

on_one_and_two!(
    abandoned_place_is_taken_and_the_queue_moves_up,
    polls_and_streams_keep_the_place,
    users_who_waited_before_the_setting_count_as_heard_then,
    poll_interval_is_at_most_half_of_the_time,
);

/// One active user, and an hour to be heard.
fn settings() -> Value {
    json!({"promote_per_interval": 1_000, "interval_ms": 100, "max_active": 1,
        "active_seconds": 3_600, "abandon_after_seconds": 3_600})
}

fn bytes_of(user: &str) -> Vec<u8> {
    uuid::Uuid::parse_str(user).unwrap().as_bytes().to_vec()
}

/// When each waiting user was last heard of.
struct HeardTimes {
    redis: RespClient,
    key: String,
}

impl HeardTimes {
    async fn of(world: &TestWorld) -> Self {
        let partition = world.stores.partition_of(CONCERT);
        let key = world.stores.key(partition, &format!("q:{CONCERT}:heard"));
        Self { redis: world.stores.redis().await, key }
    }

    async fn all(&mut self) -> Vec<(Vec<u8>, i64)> {
        let words = self.redis.ask(&["ZRANGE", &self.key, "0", "-1", "WITHSCORES"]).await.list();
        let mut words = words.into_iter();
        let mut all = Vec::new();
        while let (Some(user), Some(at)) = (words.next(), words.next()) {
            all.push((user.bytes(), at.text().parse().unwrap()));
        }
        all
    }

    async fn time(&mut self, user: &str) -> Option<i64> {
        let user = bytes_of(user);
        self.all().await.into_iter().find(|(known, _)| *known == user).map(|(_, at)| at)
    }

    /// Makes all users silent for a number of milliseconds longer.
    async fn move_back(&mut self, ms: i64) {
        let script = "local all = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES') \
                      for i = 1, #all, 2 do \
                      local at = string.format('%d', all[i + 1] - ARGV[1]) \
                      redis.call('ZADD', KEYS[1], at, all[i]) end return #all";
        self.redis.ask(&["EVAL", script, "1", &self.key, &ms.to_string()]).await;
    }
}

async fn stream(api: &ApiClient, token: &str) -> EventStream {
    let url = format!("{}/v1/queues/{CONCERT}/tokens/me/events", api.public());
    EventStream::open(&url, &[("queue-token", token)]).await
}

async fn abandoned_place_is_taken_and_the_queue_moves_up(world: TestWorld) {
    world.put_queue(CONCERT, settings()).await;
    let api = &world.api;
    let active = api.join_new_user(CONCERT).await;
    let closed_tab = api.join_new_user(CONCERT).await;
    let mut heard = HeardTimes::of(&world).await;
    assert!(heard.time(&closed_tab.user).await.is_some(), "a join is a sign of life");
    heard.move_back(3_600_000).await;
    for at in 0..api.instances() {
        api.for_instance(at).wait_until_expired(CONCERT, &closed_tab.token).await;
    }
    let next = api.join_new_user(CONCERT).await;
    eventually("the user behind is first", || async {
        let ticket = api.poll(CONCERT, &next.token).await.expect(200);
        (ticket["position"] == 1).then_some(())
    })
    .await;
    eventually("one user waits", || async {
        let state = api.get(&format!("/v1/queues/{CONCERT}")).send().await.expect(200);
        (state["waiting"] == 1).then_some(())
    })
    .await;
    assert_eq!(api.poll(CONCERT, &active.token).await.expect(200)["status"], "active");
    let again = api.join(CONCERT, &closed_tab.user).await.expect(201);
    assert_eq!(again["status"], "waiting");
    world.stores.audit().await;
}

async fn polls_and_streams_keep_the_place(world: TestWorld) {
    world.put_queue(CONCERT, settings()).await;
    let api = &world.api;
    let _active = api.join_new_user(CONCERT).await;
    let (polling, streaming) = (api.join_new_user(CONCERT).await, api.join_new_user(CONCERT).await);
    let mut heard = HeardTimes::of(&world).await;
    heard.move_back(3_000_000).await;
    let before = heard.time(&polling.user).await.unwrap();
    let mut events = stream(api, &streaming.token).await;
    events.ticket().await;
    api.poll(CONCERT, &polling.token).await.expect(200);
    let heard = tokio::sync::Mutex::new(heard);
    for user in [&polling.user, &streaming.user] {
        eventually("the sign of life is in Redis", || async {
            let at = heard.lock().await.time(user).await;
            (at.unwrap() > before + 2_000_000).then_some(())
        })
        .await;
    }
}

async fn users_who_waited_before_the_setting_count_as_heard_then(world: TestWorld) {
    let mut without = settings();
    without["abandon_after_seconds"] = json!(null);
    world.put_queue(CONCERT, without.clone()).await;
    let api = &world.api;
    for _ in 0..5 {
        api.join(CONCERT, &new_user()).await.expect(201);
    }
    let heard = tokio::sync::Mutex::new(HeardTimes::of(&world).await);
    assert!(heard.lock().await.all().await.is_empty());
    world.put_queue(CONCERT, settings()).await;
    eventually("all who wait count as heard", || async {
        (heard.lock().await.all().await.len() == 4).then_some(())
    })
    .await;
    world.put_queue(CONCERT, without).await;
    eventually("the times are forgotten", || async {
        heard.lock().await.all().await.is_empty().then_some(())
    })
    .await;
    eventually("all still wait", || async {
        let state = api.get(&format!("/v1/queues/{CONCERT}")).send().await.expect(200);
        (state["waiting"] == 4).then_some(())
    })
    .await;
}

async fn poll_interval_is_at_most_half_of_the_time(world: TestWorld) {
    let mut short = settings();
    short["abandon_after_seconds"] = json!(30);
    world.put_queue(CONCERT, short).await;
    let api = &world.api;
    let _active = api.join_new_user(CONCERT).await;
    let ticket = api.join(CONCERT, &new_user()).await.expect(201);
    assert!(ticket["poll_after_ms"].as_u64().unwrap() <= 15_000, "{ticket}");
}

/// Users who return within the restore window keep their places for `abandon_after_seconds` from
/// then on, although Redis lost when they were heard of. Users who do not return are gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn abandoned_places_are_taken_after_a_loss_of_redis() {
    let world = TestWorld::on(TestStores::with_own_redis().await, 2).await;
    let mut narrow = settings();
    narrow["restore_seconds"] = json!(2);
    world.put_queue(CONCERT, narrow).await;
    let api = &world.api;
    let mut users = Vec::new();
    for _ in 0..5 {
        users.push(api.join_new_user(CONCERT).await);
    }
    world.stores.audit().await;
    lose_redis(&world).await;
    // The third user does not return.
    let returned = [&users[0], &users[1], &users[3], &users[4]];
    for user in returned {
        assert_eq!(api.poll(CONCERT, &user.token).await.expect(200)["status"], "waiting");
    }
    let heard = tokio::sync::Mutex::new(HeardTimes::of(&world).await);
    eventually("the returned users count as heard", || async {
        (heard.lock().await.all().await.len() >= 3).then_some(())
    })
    .await;
    api.wait_until_active(CONCERT, &users[0]).await;
    for user in &returned[1..] {
        assert_eq!(api.poll(CONCERT, &user.token).await.expect(200)["status"], "waiting");
    }
    eventually("they still count as heard", || async {
        let mut heard = heard.lock().await;
        for user in &returned[1..] {
            heard.time(&user.user).await?;
        }
        Some(())
    })
    .await;
    heard.lock().await.move_back(3_600_000).await;
    for user in &returned[1..] {
        api.wait_until_expired(CONCERT, &user.token).await;
    }
    api.wait_until_expired(CONCERT, &users[2].token).await;
    world.stores.audit().await;
}
