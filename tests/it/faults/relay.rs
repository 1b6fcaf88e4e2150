//! The relay of the fault tests does what it says, held against a real Redis and a real MySQL.

use std::time::Duration;

use tokio::time::timeout;

use crate::support::resp::{Reply, Resp};
use crate::support::{
    Api, Instance, Lose, Process, Relay, Relays, Stores, World, eventually, new_user,
};

/// Long enough for a reply that is on its way.
const MOMENT: Duration = Duration::from_millis(300);

#[tokio::test]
async fn a_lost_reply_is_of_work_that_was_done_and_a_lost_request_of_none() {
    let stores = Stores::without_schema().await;
    let relay = Relay::to(stores.redis_port).await;
    let key = stores.key(0, "count");
    for (lose, count) in [(Lose::Request, 0), (Lose::Reply, 1)] {
        let mut through = Resp::connect(relay.port()).await;
        through.ask(&["PING"]).await;
        relay.strike("INCR", lose, 1);
        let asked = key.clone();
        tokio::spawn(async move { through.ask(&["INCR", &asked]).await }).await.unwrap_err();
        let found = stores.redis().await.ask(&["MGET", &key]).await.list().remove(0);
        assert_eq!(if found == Reply::Nil { 0 } else { found.int() }, count, "{lose:?}");
    }
    assert_eq!(relay.struck(), 2);
    Resp::connect(relay.port()).await.ask(&["INCR", &key]).await;
}

#[tokio::test]
async fn a_cut_ends_connections_and_a_freeze_holds_them() {
    let stores = Stores::without_schema().await;
    let relay = Relay::to(stores.redis_port).await;
    let mut through = Resp::connect(relay.port()).await;
    through.ask(&["PING"]).await;
    relay.freeze(true);
    assert!(timeout(MOMENT, through.ask(&["PING"])).await.is_err(), "frozen");
    relay.freeze(false);

    let mut through = Resp::connect(relay.port()).await;
    relay.swallow_replies(true);
    let key = stores.key(0, "swallowed");
    assert!(timeout(MOMENT, through.ask(&["INCR", &key])).await.is_err(), "swallowed");
    relay.swallow_replies(false);
    assert_eq!(stores.redis().await.ask(&["GET", &key]).await.int(), 1);

    let mut through = Resp::connect(relay.port()).await;
    through.ask(&["PING"]).await;
    relay.cut();
    tokio::spawn(async move { through.ask(&["PING"]).await }).await.unwrap_err();
    Resp::connect(relay.port()).await.ask(&["PING"]).await;

    relay.down();
    let port = relay.port();
    tokio::spawn(async move { Resp::connect(port).await.ask(&["PING"]).await }).await.unwrap_err();
    relay.up();
    Resp::connect(relay.port()).await.ask(&["PING"]).await;

    relay.delay_replies(MOMENT);
    let mut through = Resp::connect(relay.port()).await;
    assert!(timeout(MOMENT / 2, through.ask(&["PING"])).await.is_err(), "delayed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_behind_relays_serve_and_write() {
    let stores = Stores::new().await;
    let relays = Relays::before(&stores).await;
    let process = Process::start_with(&stores, &relays.env()).await;
    let elsewhere = Api::new(vec![[process.public.clone(), process.admin.clone()]]);
    let instance = Instance::start_with(&relays.args(&stores)).await;
    let world = World::with(stores, vec![instance]);
    let user = new_user();
    relays.mysql.strike("COMMIT", Lose::Reply, 1);
    world.api.charge(&user, 100).await;
    elsewhere.charge(&user, 100).await;
    world.stores.audit().await;
    assert_eq!(relays.mysql.struck(), 1);
    relays.redis.cut();
    for api in [world.api.clone(), elsewhere] {
        eventually("Redis is reached again", || async {
            (api.get("/v1/wallet").user(&user).send().await.status == 200).then_some(())
        })
        .await;
    }
}
