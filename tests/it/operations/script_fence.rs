//! Every Lua script loads in Redis and changes nothing under a different epoch.

use crate::support::TestStores;

#[tokio::test]
async fn every_script_loads_and_changes_nothing_under_another_epoch() {
    let stores = TestStores::new().await;
    let mut redis = stores.redis().await;
    for script in usher::redis::scripts::ALL {
        redis.ask(&["SCRIPT", "LOAD", script.body()]).await;
        let keys: Vec<String> =
            script.keys().iter().map(|key| stores.key(0, &key.replace(':', "_"))).collect();
        let count = keys.len().to_string();
        let mut call = vec!["EVAL", script.body(), &count];
        call.extend(keys.iter().map(String::as_str));
        call.push("4711");
        assert_eq!(redis.ask(&call).await.int(), -1, "{}", script.name());
    }
    assert_eq!(redis.dump_keys(&stores.prefix).await.len(), 0);
}
