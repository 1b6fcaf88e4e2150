//! Operations across partitions when one partition is lost halfway: money, seats and coupons reach
//! one consistent end.

use serde_json::{Value, json};
use usher::outbox::{DurabilitySettings, OutboxWriter};
use usher::recovery::StoreReconciler;

use crate::queue::model::connect;
use crate::recovery::restore::{
    generations, lose_redis, open_sale, wait_until_reconciled, wait_until_serving,
};
use crate::support::api::TestUser;
use crate::support::servers::partition_of_user;
use crate::support::{
    ApiClient, CONCERT, SCHEDULE, TempDir, TestStores, TestWorld, UsherProcess, eventually,
    new_key, new_user,
};

const CHARGED: i64 = 5_000;

/// A user with money and a held seat, whose wallet and queue are in different partitions.
async fn payer(api: &ApiClient, stores: &TestStores, seat: u32) -> (TestUser, String) {
    let elsewhere = |user: &String| partition_of_user(user) != stores.partition_of(CONCERT);
    let user = std::iter::repeat_with(new_user).find(elsewhere).unwrap();
    let ticket = api.join(CONCERT, &user).await.expect(201);
    let guest = TestUser { token: ticket["token"].as_str().unwrap().to_owned(), user };
    api.wait_until_active(CONCERT, &guest).await;
    api.charge(&guest.user, CHARGED).await;
    let reservation = api.hold_seats(&guest.token, SCHEDULE, &[seat]).await;
    (guest, reservation)
}

async fn world() -> TestWorld {
    let world = TestWorld::on(TestStores::with_own_redis().await, 1).await;
    open_sale(&world, 10).await;
    world
}

/// Waits until a partition has a new epoch and serves.
async fn wait_until_restored(world: &TestWorld, partition: u16, had: &[String]) {
    let partition = usize::from(partition);
    eventually("the partition is restored", || async {
        let has = generations(&world.stores).await;
        (has[partition].parse::<u64>().is_ok() && has[partition] != had[partition]).then_some(())
    })
    .await;
    wait_until_serving(&world.api).await;
}

async fn rows(stores: &TestStores, query: &'static str, least: i64) {
    eventually(query, || async { (stores.count(query).await >= least).then_some(()) }).await;
}

const DEBITS: &str = "SELECT COUNT(*) FROM wallet_entries WHERE kind = 'payment'";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn debit_of_a_lost_payment_is_refunded_once() {
    let world = world().await;
    let (api, stores) = (&world.api, &world.stores);
    let (guest, reservation) = payer(api, stores, 1).await;
    let process =
        UsherProcess::start_failing(stores, "payment/confirm.before=1*return(kill)").await;
    assert!(
        process.api().payment(&guest.token, &reservation, &new_key()).try_send().await.is_err()
    );
    rows(stores, DEBITS, 1).await;
    let (queue, had) = (stores.partition_of(CONCERT), generations(stores).await);
    stores.lose_partition(queue).await;
    wait_until_restored(&world, queue, &had).await;
    eventually("the money is refunded", || async {
        (api.balance(&guest.user).await == CHARGED).then_some(())
    })
    .await;
    wait_until_reconciled(stores).await;
    let facts = stores.audit().await;
    assert_eq!(
        (facts.sold.len(), facts.payments.len(), api.balance(&guest.user).await),
        (0, 0, CHARGED)
    );
    assert_eq!(stores.count("SELECT COUNT(*) FROM wallet_entries WHERE kind = 'refund'").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn debit_of_a_lost_payment_is_refunded_after_a_total_loss() {
    let world = world().await;
    let (api, stores) = (&world.api, &world.stores);
    let (guest, reservation) = payer(api, stores, 1).await;
    let process =
        UsherProcess::start_failing(stores, "payment/confirm.before=1*return(kill)").await;
    assert!(
        process.api().payment(&guest.token, &reservation, &new_key()).try_send().await.is_err()
    );
    rows(stores, DEBITS, 1).await;
    lose_redis(&world).await;
    eventually("the money is refunded", || async {
        (api.balance(&guest.user).await == CHARGED).then_some(())
    })
    .await;
    let facts = stores.audit().await;
    assert_eq!((facts.sold.len(), facts.payments.len()), (0, 0));
    // The user's facts do not count it.
    let guest = TestUser {
        token: api.join(CONCERT, &guest.user).await.body["token"].as_str().unwrap().to_owned(),
        ..guest
    };
    api.wait_until_active(CONCERT, &guest).await;
    api.post("/v1/rewards/hello/claims")
        .user(&guest.user)
        .send()
        .await
        .problem(403, "condition_not_met");
}

/// Pays while no event of the wallet's partition reaches MySQL, then deletes that partition. With
/// `money_too` the charge is lost, too.
async fn payment_survives_and_its_debit_is_lost(money_too: bool) {
    let world = world().await;
    let (api, stores) = (&world.api, &world.stores);
    let elsewhere = |user: &String| partition_of_user(user) != stores.partition_of(CONCERT);
    let user = std::iter::repeat_with(new_user).find(elsewhere).unwrap();
    let wallet = partition_of_user(&user);
    if !money_too {
        api.charge(&user, CHARGED).await;
        stores.wait_until_idle().await;
    }
    let mut lock = stores.mysql.begin().await.unwrap();
    let select = "SELECT n FROM outbox_checkpoints WHERE partition_id = ? FOR UPDATE";
    sqlx::query(select).bind(wallet).fetch_all(&mut *lock).await.unwrap();
    if money_too {
        api.charge(&user, CHARGED).await;
    }
    let ticket = api.join(CONCERT, &user).await.expect(201);
    let guest = TestUser { token: ticket["token"].as_str().unwrap().to_owned(), user };
    api.wait_until_active(CONCERT, &guest).await;
    let reservation = api.hold_seats(&guest.token, SCHEDULE, &[1]).await;
    let paid = api.pay(&guest.token, &reservation, &new_key()).await.expect(201);
    rows(stores, "SELECT COUNT(*) FROM payments WHERE status = 'confirmed'", 1).await;
    assert_eq!(stores.count(DEBITS).await, 0);
    let had = generations(stores).await;
    stores.lose_partition(wallet).await;
    lock.rollback().await.unwrap();
    wait_until_restored(&world, wallet, &had).await;
    assert_eq!(
        json!(api.balance(&guest.user).await),
        paid["balance_after"],
        "the debit exists before the partition serves"
    );
    let facts = stores.audit().await;
    assert_eq!((facts.sold.len(), facts.payments_that_are("confirmed")), (1, 1));
    let charges = stores
        .count("SELECT CAST(SUM(amount) AS SIGNED) FROM wallet_entries WHERE kind = 'charge'")
        .await;
    assert_eq!(charges, CHARGED);
    // The restored debit matches the payment: the payment can be cancelled, and the money is
    // refunded.
    let path = format!("/v1/reservations/{reservation}/cancel");
    api.post(&path).user(&guest.user).key(&new_key()).send().await.expect(200);
    assert_eq!(api.balance(&guest.user).await, CHARGED);
    stores.audit().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn debit_lost_with_its_wallet_is_restored() {
    payment_survives_and_its_debit_is_lost(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn charge_lost_with_its_debit_is_restored() {
    payment_survives_and_its_debit_is_lost(true).await;
}

/// A payment in one call writes to two partitions. The queue's is lost before MySQL has its events.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payment_lost_with_its_queue_is_refunded() {
    let world = world().await;
    let (api, stores) = (&world.api, &world.stores);
    let (guest, reservation) = payer(api, stores, 1).await;
    stores.wait_until_idle().await;
    let queue = stores.partition_of(CONCERT);
    let mut lock = stores.mysql.begin().await.unwrap();
    let select = "SELECT n FROM outbox_checkpoints WHERE partition_id = ? FOR UPDATE";
    sqlx::query(select).bind(queue).fetch_all(&mut *lock).await.unwrap();
    let key = new_key();
    api.pay(&guest.token, &reservation, &key).await.expect(201);
    rows(stores, DEBITS, 1).await;
    let had = generations(stores).await;
    stores.lose_partition(queue).await;
    lock.rollback().await.unwrap();
    wait_until_restored(&world, queue, &had).await;
    eventually("the money is refunded", || async {
        (api.balance(&guest.user).await == CHARGED).then_some(())
    })
    .await;
    wait_until_reconciled(stores).await;
    // The key still leads to the lost payment, and to no other one.
    let again = api.pay(&guest.token, &reservation, &key).await;
    assert!([403, 404, 410].contains(&again.status), "{again:?}");
    let facts = stores.audit().await;
    assert_eq!((facts.sold.len(), facts.payments_that_are("confirmed")), (0, 0));
    assert_eq!(api.balance(&guest.user).await, CHARGED);
}

async fn issue_of(api: &ApiClient, user: &str) -> String {
    let issue = api.post("/v1/coupons/spring/issues").user(user).send().await;
    issue.body["id"].as_str().unwrap().to_owned()
}

async fn pay_with(
    api: &ApiClient,
    guest: &TestUser,
    reservation: &str,
    issue: &str,
) -> Option<Value> {
    let body = json!({"reservation_id": reservation, "coupon_issue_id": issue});
    let call = api.post("/v1/payments").token(&guest.token).key(&new_key()).json(&body);
    call.try_send().await.ok().filter(|answer| answer.status == 201).map(|answer| answer.body)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn coupon_of_a_lost_payment_is_unused() {
    for point in ["wallet/debit.before=1*return(kill)", "payment/confirm.before=1*return(kill)"] {
        let world = world().await;
        let (api, stores) = (&world.api, &world.stores);
        let (guest, reservation) = payer(api, stores, 1).await;
        let issue = issue_of(api, &guest.user).await;
        let process = UsherProcess::start_failing(stores, point).await;
        assert_eq!(pay_with(&process.api(), &guest, &reservation, &issue).await, None);
        stores.wait_until_written().await;
        let (queue, had) = (stores.partition_of(CONCERT), generations(stores).await);
        stores.lose_partition(queue).await;
        wait_until_restored(&world, queue, &had).await;
        let ticket = api.join(CONCERT, &guest.user).await.body;
        let guest = TestUser { token: ticket["token"].as_str().unwrap().to_owned(), ..guest };
        api.wait_until_active(CONCERT, &guest).await;
        let reservation = api.hold_seats(&guest.token, SCHEDULE, &[1]).await;
        let paid =
            eventually("the coupon can be used", || pay_with(api, &guest, &reservation, &issue))
                .await;
        assert_eq!((&paid["discount"], &paid["paid"]), (&json!(300), &json!(700)));
        wait_until_reconciled(stores).await;
        stores.audit().await;
        assert_eq!(api.balance(&guest.user).await, CHARGED - 700);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancellation_continues_after_its_refund() {
    let world = world().await;
    let (api, stores) = (&world.api, &world.stores);
    let (guest, reservation) = payer(api, stores, 1).await;
    api.pay(&guest.token, &reservation, &new_key()).await.expect(201);
    stores.audit().await;
    let process =
        UsherProcess::start_failing(stores, "payment/finish_cancel.before=1*return(kill)").await;
    let path = format!("/v1/reservations/{reservation}/cancel");
    let key = new_key();
    let cancel = |api: &ApiClient| api.post(&path).user(&guest.user).key(&key);
    assert!(cancel(&process.api()).try_send().await.is_err());
    rows(stores, "SELECT COUNT(*) FROM wallet_entries WHERE kind = 'refund'", 1).await;
    let (queue, had) = (stores.partition_of(CONCERT), generations(stores).await);
    stores.lose_partition(queue).await;
    wait_until_restored(&world, queue, &had).await;
    eventually("the reservation is cancelled", || async {
        let found = api
            .get(&format!("/v1/reservations/{reservation}"))
            .user(&guest.user)
            .send()
            .await
            .expect(200);
        (found["status"] == "cancelled").then_some(())
    })
    .await;
    let facts = stores.audit().await;
    assert_eq!((facts.sold.len(), facts.payments_that_are("refunded")), (0, 1));
    assert_eq!(api.balance(&guest.user).await, CHARGED);
}

/// Reconciliation finds the debit in MySQL, not yet the payment, and in Redis only that the payment
/// has ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancellation_is_refunded_once_while_mysql_is_behind() {
    let world = world().await;
    let (api, stores) = (&world.api, &world.stores);
    let (guest, reservation) = payer(api, stores, 1).await;
    stores.wait_until_idle().await;
    let redis = connect(stores).await;
    let mut lock = stores.mysql.begin().await.unwrap();
    let select = "SELECT n FROM outbox_checkpoints WHERE partition_id = ? FOR UPDATE";
    sqlx::query(select).bind(stores.partition_of(CONCERT)).fetch_all(&mut *lock).await.unwrap();
    api.pay(&guest.token, &reservation, &new_key()).await.expect(201);
    let path = format!("/v1/reservations/{reservation}/cancel");
    api.post(&path).user(&guest.user).key(&new_key()).send().await.expect(200);
    rows(stores, DEBITS, 1).await;

    let began = "INSERT INTO recoveries (partition_id, generation, began_at, laid_at, settled_at) \
                 VALUES (0, 1, UTC_TIMESTAMP(3), UTC_TIMESTAMP(3), NULL)";
    sqlx::query(began).execute(&stores.mysql).await.unwrap();
    let nudge =
        OutboxWriter::new(redis.clone(), stores.mysql.clone(), DurabilitySettings::default())
            .handle();
    StoreReconciler::new(redis, stores.mysql.clone(), nudge).round().await.unwrap();
    assert_eq!(api.balance(&guest.user).await, CHARGED);
    lock.rollback().await.unwrap();
    wait_until_reconciled(stores).await;
    stores.audit().await;
    assert_eq!(api.balance(&guest.user).await, CHARGED);
}

/// A cancellation is stopped right before the refund, while everything that MySQL lacks is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payment_without_debit_is_not_refunded() {
    let world = world().await;
    let (api, stores) = (&world.api, &world.stores);
    let (guest, reservation) = payer(api, stores, 1).await;
    stores.wait_until_idle().await;
    let gate = TempDir::new("it-gate").unwrap();
    let go = gate.path().join("go");
    let point = format!("payment/begin_cancel.after=return(until {})", go.display());
    let process = UsherProcess::start_failing(stores, &point).await;
    let mut lock = stores.mysql.begin().await.unwrap();
    let select = "SELECT n FROM outbox_checkpoints FOR UPDATE";
    sqlx::query(select).fetch_all(&mut *lock).await.unwrap();
    api.pay(&guest.token, &reservation, &new_key()).await.expect(201);
    let path = format!("/v1/reservations/{reservation}/cancel");
    let held = process.api();
    let cancel = held.post(&path).user(&guest.user).key(&new_key()).try_send();
    let lost = async {
        process.wait_for_failpoint("payment/begin_cancel.after").await;
        let had = generations(stores).await;
        stores.redis().await.ask(&["FLUSHALL"]).await;
        lock.rollback().await.unwrap();
        crate::recovery::restore::wait_until_restored(&world, &had).await;
        std::fs::write(&go, "").unwrap();
    };
    let (_unknown, ()) = tokio::join!(cancel, lost);
    wait_until_reconciled(stores).await;
    assert_eq!(api.balance(&guest.user).await, CHARGED);
    stores.audit().await;
    process.kill().await;
}
