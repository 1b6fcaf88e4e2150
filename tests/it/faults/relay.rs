//! The relay of the fault tests, checked with a real Redis and a real MySQL.

use std::time::Duration;

use tokio::time::timeout;

use crate::support::resp::{RespClient, RespValue};
use crate::support::{
    ApiClient, LossTarget, StoreRelays, TcpRelay, TestInstance, TestStores, TestWorld,
    UsherProcess, eventually, new_user,
};

/// Longer than a reply takes.
const REPLY_WAIT: Duration = Duration::from_millis(300);

#[tokio::test]
async fn lost_reply_was_executed_and_lost_request_was_not() {
    let stores = TestStores::without_schema().await;
    let relay = TcpRelay::to(stores.redis_port).await;
    let key = stores.key(0, "count");
    for (lose, count) in [(LossTarget::Request, 0), (LossTarget::Reply, 1)] {
        let mut through = RespClient::connect(relay.port()).await;
        through.ask(&["PING"]).await;
        relay.strike("INCR", lose, 1);
        let asked = key.clone();
        tokio::spawn(async move { through.ask(&["INCR", &asked]).await }).await.unwrap_err();
        let found = stores.redis().await.ask(&["MGET", &key]).await.list().remove(0);
        assert_eq!(if found == RespValue::Nil { 0 } else { found.int() }, count, "{lose:?}");
    }
    assert_eq!(relay.struck(), 2);
    RespClient::connect(relay.port()).await.ask(&["INCR", &key]).await;
}

#[tokio::test]
async fn cut_ends_connections_and_freeze_holds_them() {
    let stores = TestStores::without_schema().await;
    let relay = TcpRelay::to(stores.redis_port).await;
    let mut through = RespClient::connect(relay.port()).await;
    through.ask(&["PING"]).await;
    relay.freeze(true);
    assert!(timeout(REPLY_WAIT, through.ask(&["PING"])).await.is_err(), "frozen");
    relay.freeze(false);

    let mut through = RespClient::connect(relay.port()).await;
    relay.swallow_replies(true);
    let key = stores.key(0, "swallowed");
    assert!(timeout(REPLY_WAIT, through.ask(&["INCR", &key])).await.is_err(), "swallowed");
    relay.swallow_replies(false);
    assert_eq!(stores.redis().await.ask(&["GET", &key]).await.int(), 1);

    let mut through = RespClient::connect(relay.port()).await;
    through.ask(&["PING"]).await;
    relay.cut();
    tokio::spawn(async move { through.ask(&["PING"]).await }).await.unwrap_err();
    RespClient::connect(relay.port()).await.ask(&["PING"]).await;

    relay.down();
    let port = relay.port();
    tokio::spawn(async move { RespClient::connect(port).await.ask(&["PING"]).await })
        .await
        .unwrap_err();
    relay.up();
    RespClient::connect(relay.port()).await.ask(&["PING"]).await;

    relay.delay_replies(REPLY_WAIT);
    let mut through = RespClient::connect(relay.port()).await;
    assert!(timeout(REPLY_WAIT / 2, through.ask(&["PING"])).await.is_err(), "delayed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_behind_relays_serve_and_write() {
    let stores = TestStores::new().await;
    let relays = StoreRelays::before(&stores).await;
    let process = UsherProcess::start_with(&stores, &relays.env()).await;
    let elsewhere = ApiClient::new(vec![[process.public.clone(), process.admin.clone()]]);
    let instance = TestInstance::start_with(&relays.args(&stores)).await;
    let world = TestWorld::with(stores, vec![instance]);
    let user = new_user();
    relays.mysql.strike("COMMIT", LossTarget::Reply, 1);
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
