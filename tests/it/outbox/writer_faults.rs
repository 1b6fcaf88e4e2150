//! The writer and faults of MySQL: deadlocks, long locks, commits with a lost reply, and other
//! writers that die.

use futures::future::join_all;
use sqlx::Executor;

use crate::support::{
    ApiClient, EVENT_TIMEOUT, LossTarget, StoreRelays, TestStores, UsherProcess, eventually,
    new_key, new_user,
};

/// The value of a metric of a process.
async fn metric(process: &UsherProcess, name: &str) -> f64 {
    let text =
        reqwest::get(format!("{}/metrics", process.admin)).await.unwrap().text().await.unwrap();
    let line = text.lines().find(|line| line.starts_with(&format!("{name} ")));
    line.and_then(|line| line.rsplit(' ').next()).map_or(0.0, |number| number.parse().unwrap())
}

/// Two users in the order of their ids, with wallets in MySQL.
async fn two_users(stores: &TestStores, api: &ApiClient) -> [String; 2] {
    let mut users = [new_user(), new_user()];
    users.sort();
    for user in &users {
        api.charge(user, 100).await;
    }
    stores.audit().await;
    users
}

async fn lock_wallet(on: &mut sqlx::MySqlConnection, user: &str) {
    let id = uuid::Uuid::parse_str(user).unwrap();
    sqlx::query("SELECT balance FROM wallets WHERE user_id = ? FOR UPDATE")
        .bind(id)
        .execute(on)
        .await
        .unwrap();
}

/// Waits until a transaction of the test's database waits for a lock.
async fn transaction_waits_for_a_lock(stores: &TestStores) {
    eventually("the writer waits for the lock", || async {
        let waiting = "SELECT COUNT(*) FROM information_schema.innodb_trx t JOIN \
             information_schema.processlist p \
                       ON p.id = t.trx_mysql_thread_id WHERE t.trx_state = 'LOCK WAIT' AND p.db = \
                       DATABASE()";
        (stores.count(waiting).await > 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "on a loaded machine the wait for the lock may be missed"]
async fn deadlock_rolls_back_and_repeats_the_whole_batch() {
    let stores = TestStores::new().await;
    let process = UsherProcess::start(&stores).await;
    let api = process.api();
    let users = two_users(&stores, &api).await;
    // InnoDB rolls back the transaction that has changed less, so this one must change more than
    // the writer.
    stores.mysql.execute("CREATE TABLE heavy (n INT PRIMARY KEY)").await.unwrap();
    let mut rival = stores.mysql.begin().await.unwrap();
    let fill = "INSERT INTO heavy SELECT seq FROM seq_1_to_5000";
    sqlx::query(fill).execute(&mut *rival).await.unwrap();
    lock_wallet(&mut rival, &users[1]).await;
    // The writer locks wallets in order. Both entries are in one batch, so it holds the first
    // wallet while it waits for the second.
    let mut lock = stores.mysql.begin().await.unwrap();
    sqlx::query("SELECT n FROM outbox_checkpoints FOR UPDATE").execute(&mut *lock).await.unwrap();
    join_all(users.iter().map(|user| api.charge(user, 10))).await;
    lock.rollback().await.unwrap();
    transaction_waits_for_a_lock(&stores).await;
    lock_wallet(&mut rival, &users[0]).await;
    rival.rollback().await.unwrap();
    let facts = stores.audit().await;
    assert_eq!(facts.wallets.values().copied().collect::<Vec<_>>(), [110, 110]);
    assert_eq!(stores.count("SELECT COUNT(*) FROM wallet_entries").await, 4);
    assert!(
        metric(&process, "usher_outbox_retries_total").await >= 1.0,
        "the writer was rolled back"
    );
    assert!(process.log().contains("Deadlock"), "{}", process.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lock_wait_timeout_is_retried() {
    let stores = TestStores::new().await;
    let process = UsherProcess::start(&stores).await;
    let api = process.api();
    let users = two_users(&stores, &api).await;
    let mut rival = stores.mysql.begin().await.unwrap();
    lock_wallet(&mut rival, &users[0]).await;
    join_all(users.iter().map(|user| api.charge(user, 10))).await;
    eventually("the writer gives up waiting", || async {
        (metric(&process, "usher_outbox_retries_total").await >= 1.0).then_some(())
    })
    .await;
    assert!(process.log().contains("Lock wait timeout"), "{}", process.log());
    rival.rollback().await.unwrap();
    let facts = stores.audit().await;
    assert_eq!(facts.wallets.values().copied().collect::<Vec<_>>(), [110, 110]);
    assert_eq!(stores.count("SELECT COUNT(*) FROM wallet_entries").await, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commit_with_a_lost_reply_is_applied_once() {
    let stores = TestStores::new().await;
    let relays = StoreRelays::before(&stores).await;
    let process = UsherProcess::start_with(&stores, &relays.env()).await;
    let api = process.api();
    for lose in [LossTarget::Reply, LossTarget::Request] {
        let struck = relays.mysql.struck();
        relays.mysql.strike("COMMIT", lose, 5);
        for _ in 0..4 {
            join_all((0..15).map(async |_| api.charge(&new_user(), 10).await)).await;
        }
        eventually("five commits lost their reply", || async {
            api.charge(&new_user(), 10).await;
            (relays.mysql.struck() == struck + 5).then_some(())
        })
        .await;
    }
    let facts = stores.audit().await;
    let lines = stores.count("SELECT COUNT(*) FROM wallet_entries").await;
    assert_eq!(lines, i64::try_from(facts.wallets.len()).unwrap(), "one entry per charge");
    assert!(lines >= 120);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_of_three_writers_may_die_at_any_step() {
    let stores = TestStores::new().await;
    let survivor = UsherProcess::start(&stores).await;
    let before =
        UsherProcess::start_failing(&stores, "writer.before_commit=3*off->1*return(kill)").await;
    let after =
        UsherProcess::start_failing(&stores, "writer.after_commit=3*off->1*return(kill)").await;
    let (api, users) = (survivor.api(), new_users(150));
    // The two processes that will die take requests until then, which wake their writers.
    let doomed = [before.api(), after.api()];
    let mut asked = Vec::new();
    for (at, user) in users.iter().enumerate() {
        let key = new_key();
        let through = &doomed[at % 2];
        let call = through.post("/v1/wallet/charges").user(user).key(&key);
        let answer = call.json(&serde_json::json!({"amount": 10})).try_send().await;
        if !answer.is_ok_and(|answer| answer.status == 201) {
            // Requests without a response are repeated at another instance with the same key.
            api.charge_with_key(user, 10, &key).await.expect(201);
        }
        asked.push(key);
    }
    let died = async { tokio::join!(before.wait_until_killed(), after.wait_until_killed()) };
    tokio::time::timeout(EVENT_TIMEOUT, died).await.expect("both died at their fail points");
    let facts = stores.audit().await;
    assert_eq!(facts.wallets.values().copied().collect::<Vec<_>>(), vec![10; 150]);
    assert_eq!(stores.count("SELECT COUNT(*) FROM wallet_entries").await, 150);
}

fn new_users(count: usize) -> Vec<String> {
    (0..count).map(|_| new_user()).collect()
}
