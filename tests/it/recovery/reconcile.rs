//! What crosses partitions, when one of them is lost in the middle: money, seats and coupons come to one end all the same.

use serde_json::{Value, json};
use usher::outbox::{DurabilitySettings, OutboxWriter};
use usher::recovery::StoreReconciler;

use crate::queue::model::connect;
use crate::recovery::restore::{fair, generations, serves_again, settled};
use crate::support::api::Guest;
use crate::support::{
    Api, NIGHT, Process, SHOW, Stores, TempDir, World, eventually, new_key, new_user,
};

const CHARGED: i64 = 5_000;

/// A guest with money and a held seat, whose wallet lives in another partition than the queue.
async fn payer(api: &Api, stores: &Stores, seat: u32) -> (Guest, String) {
    let elsewhere = |user: &String| stores.partition_of_user(user) != stores.partition_of(SHOW);
    let user = std::iter::repeat_with(new_user).find(elsewhere).unwrap();
    let ticket = api.join(SHOW, &user).await.expect(201);
    let guest = Guest { token: ticket["token"].as_str().unwrap().to_owned(), user };
    api.until_active(SHOW, &guest).await;
    api.charge(&guest.user, CHARGED).await;
    let reservation = api.held(&guest.token, NIGHT, &[seat]).await;
    (guest, reservation)
}

async fn world() -> World {
    let world = World::on(Stores::with_own_redis().await, 1).await;
    fair(&world, 10).await;
    world
}

/// Waits until a partition has another generation and serves.
async fn laid_back(world: &World, partition: u16, had: &[String]) {
    let partition = usize::from(partition);
    eventually("it is laid back", || async {
        let has = generations(&world.stores).await;
        (has[partition].parse::<u64>().is_ok() && has[partition] != had[partition]).then_some(())
    })
    .await;
    serves_again(&world.api).await;
}

async fn rows(stores: &Stores, query: &'static str, least: i64) {
    eventually(query, || async { (stores.count(query).await >= least).then_some(()) }).await;
}

const DEBITS: &str = "SELECT COUNT(*) FROM wallet_entries WHERE kind = 'payment'";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_debit_whose_payment_was_lost_is_given_back_once() {
    let world = world().await;
    let (api, stores) = (&world.api, &world.stores);
    let (guest, reservation) = payer(api, stores, 1).await;
    let process = Process::start_failing(stores, "payment/confirm.before=1*return(kill)").await;
    assert!(
        process.api().payment(&guest.token, &reservation, &new_key()).try_send().await.is_err()
    );
    rows(stores, DEBITS, 1).await;
    let (queue, had) = (stores.partition_of(SHOW), generations(stores).await);
    stores.lose(queue).await;
    laid_back(&world, queue, &had).await;
    eventually("the money is back", || async {
        (api.balance(&guest.user).await == CHARGED).then_some(())
    })
    .await;
    settled(stores).await;
    let facts = stores.audit().await;
    assert_eq!(
        (facts.sold.len(), facts.payments.len(), api.balance(&guest.user).await),
        (0, 0, CHARGED)
    );
    assert_eq!(stores.count("SELECT COUNT(*) FROM wallet_entries WHERE kind = 'refund'").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_debit_whose_payment_was_lost_is_given_back_after_a_total_loss() {
    let world = world().await;
    let (api, stores) = (&world.api, &world.stores);
    let (guest, reservation) = payer(api, stores, 1).await;
    let process = Process::start_failing(stores, "payment/confirm.before=1*return(kill)").await;
    assert!(
        process.api().payment(&guest.token, &reservation, &new_key()).try_send().await.is_err()
    );
    rows(stores, DEBITS, 1).await;
    let had = generations(stores).await;
    stores.redis().await.ask(&["FLUSHALL"]).await;
    crate::recovery::restore::laid_back(&world, &had).await;
    eventually("the money is back", || async {
        (api.balance(&guest.user).await == CHARGED).then_some(())
    })
    .await;
    let facts = stores.audit().await;
    assert_eq!((facts.sold.len(), facts.payments.len()), (0, 0));
    // What is known of the user does not count it.
    let guest = Guest {
        token: api.join(SHOW, &guest.user).await.body["token"].as_str().unwrap().to_owned(),
        ..guest
    };
    api.until_active(SHOW, &guest).await;
    api.post("/v1/rewards/hello/claims")
        .user(&guest.user)
        .send()
        .await
        .problem(403, "condition_not_met");
}

/// Pays while nothing of the wallet's partition comes to MySQL, then loses that partition. With `money_too` the charge is lost with it.
async fn a_payment_stands_and_its_debit_is_lost(money_too: bool) {
    let world = world().await;
    let (api, stores) = (&world.api, &world.stores);
    let elsewhere = |user: &String| stores.partition_of_user(user) != stores.partition_of(SHOW);
    let user = std::iter::repeat_with(new_user).find(elsewhere).unwrap();
    let wallet = stores.partition_of_user(&user);
    if !money_too {
        api.charge(&user, CHARGED).await;
        stores.at_rest().await;
    }
    let mut lock = stores.mysql.begin().await.unwrap();
    let select = "SELECT n FROM outbox_checkpoints WHERE partition_id = ? FOR UPDATE";
    sqlx::query(select).bind(wallet).fetch_all(&mut *lock).await.unwrap();
    if money_too {
        api.charge(&user, CHARGED).await;
    }
    let ticket = api.join(SHOW, &user).await.expect(201);
    let guest = Guest { token: ticket["token"].as_str().unwrap().to_owned(), user };
    api.until_active(SHOW, &guest).await;
    let reservation = api.held(&guest.token, NIGHT, &[1]).await;
    let paid = api.pay(&guest.token, &reservation, &new_key()).await.expect(201);
    rows(stores, "SELECT COUNT(*) FROM payments WHERE status = 'confirmed'", 1).await;
    assert_eq!(stores.count(DEBITS).await, 0);
    let had = generations(stores).await;
    stores.lose(wallet).await;
    lock.rollback().await.unwrap();
    laid_back(&world, wallet, &had).await;
    assert_eq!(
        json!(api.balance(&guest.user).await),
        paid["balance_after"],
        "debited before it serves"
    );
    let facts = stores.audit().await;
    assert_eq!((facts.sold.len(), facts.payments_that_are("confirmed")), (1, 1));
    let charges = stores
        .count("SELECT CAST(SUM(amount) AS SIGNED) FROM wallet_entries WHERE kind = 'charge'")
        .await;
    assert_eq!(charges, CHARGED);
    // What was laid is what the payment knows: it can be cancelled, and the money is back.
    let path = format!("/v1/reservations/{reservation}/cancel");
    api.post(&path).user(&guest.user).key(&new_key()).send().await.expect(200);
    assert_eq!(api.balance(&guest.user).await, CHARGED);
    stores.audit().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_debit_lost_with_the_wallet_is_laid_again() {
    a_payment_stands_and_its_debit_is_lost(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_charge_lost_with_the_debit_that_it_paid_for_is_laid_again() {
    a_payment_stands_and_its_debit_is_lost(true).await;
}

async fn issue_of(api: &Api, user: &str) -> String {
    let issue = api.post("/v1/coupons/spring/issues").user(user).send().await;
    issue.body["id"].as_str().unwrap().to_owned()
}

async fn pay_with(api: &Api, guest: &Guest, reservation: &str, issue: &str) -> Option<Value> {
    let body = json!({"reservation_id": reservation, "coupon_issue_id": issue});
    let call = api.post("/v1/payments").token(&guest.token).key(&new_key()).json(&body);
    call.try_send().await.ok().filter(|answer| answer.status == 201).map(|answer| answer.body)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coupon_in_a_lost_payment_is_unused_again() {
    for point in ["wallet/debit.before=1*return(kill)", "payment/confirm.before=1*return(kill)"] {
        let world = world().await;
        let (api, stores) = (&world.api, &world.stores);
        let (guest, reservation) = payer(api, stores, 1).await;
        let issue = issue_of(api, &guest.user).await;
        let process = Process::start_failing(stores, point).await;
        assert_eq!(pay_with(&process.api(), &guest, &reservation, &issue).await, None);
        stores.written().await;
        let (queue, had) = (stores.partition_of(SHOW), generations(stores).await);
        stores.lose(queue).await;
        laid_back(&world, queue, &had).await;
        let ticket = api.join(SHOW, &guest.user).await.body;
        let guest = Guest { token: ticket["token"].as_str().unwrap().to_owned(), ..guest };
        api.until_active(SHOW, &guest).await;
        let reservation = api.held(&guest.token, NIGHT, &[1]).await;
        let paid =
            eventually("the coupon can be used", || pay_with(api, &guest, &reservation, &issue))
                .await;
        assert_eq!((&paid["discount"], &paid["paid"]), (&json!(300), &json!(700)));
        settled(stores).await;
        stores.audit().await;
        assert_eq!(api.balance(&guest.user).await, CHARGED - 700);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelling_that_gave_the_money_back_goes_on() {
    let world = world().await;
    let (api, stores) = (&world.api, &world.stores);
    let (guest, reservation) = payer(api, stores, 1).await;
    api.pay(&guest.token, &reservation, &new_key()).await.expect(201);
    stores.audit().await;
    let process = Process::start_failing(stores, "payment/finish_cancel.before=1*return(kill)").await;
    let path = format!("/v1/reservations/{reservation}/cancel");
    let key = new_key();
    let cancel = |api: &Api| api.post(&path).user(&guest.user).key(&key);
    assert!(cancel(&process.api()).try_send().await.is_err());
    rows(stores, "SELECT COUNT(*) FROM wallet_entries WHERE kind = 'refund'", 1).await;
    let (queue, had) = (stores.partition_of(SHOW), generations(stores).await);
    stores.lose(queue).await;
    laid_back(&world, queue, &had).await;
    eventually("it is cancelled", || async {
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

/// A settling finds the debit in MySQL, not yet the payment, and of the payment in Redis only that it is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_cancelled_while_mysql_is_behind_is_given_back_once() {
    let world = world().await;
    let (api, stores) = (&world.api, &world.stores);
    let (guest, reservation) = payer(api, stores, 1).await;
    stores.at_rest().await;
    let redis = connect(stores).await;
    let mut lock = stores.mysql.begin().await.unwrap();
    let select = "SELECT n FROM outbox_checkpoints WHERE partition_id = ? FOR UPDATE";
    sqlx::query(select).bind(stores.partition_of(SHOW)).fetch_all(&mut *lock).await.unwrap();
    api.pay(&guest.token, &reservation, &new_key()).await.expect(201);
    let path = format!("/v1/reservations/{reservation}/cancel");
    api.post(&path).user(&guest.user).key(&new_key()).send().await.expect(200);
    rows(stores, DEBITS, 1).await;

    let began = "INSERT INTO recoveries (partition_id, generation, began_at, laid_at, settled_at) \
                 VALUES (0, 1, UTC_TIMESTAMP(3), UTC_TIMESTAMP(3), NULL)";
    sqlx::query(began).execute(&stores.mysql).await.unwrap();
    let nudge =
        OutboxWriter::new(redis.clone(), stores.mysql.clone(), DurabilitySettings::default())
            .nudge();
    StoreReconciler::new(redis, stores.mysql.clone(), nudge).round().await.unwrap();
    assert_eq!(api.balance(&guest.user).await, CHARGED);
    lock.rollback().await.unwrap();
    settled(stores).await;
    stores.audit().await;
    assert_eq!(api.balance(&guest.user).await, CHARGED);
}

/// A cancelling is held right before the money goes back, while everything is lost of which MySQL has nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_never_debited_is_not_given_back() {
    let world = world().await;
    let (api, stores) = (&world.api, &world.stores);
    let (guest, reservation) = payer(api, stores, 1).await;
    stores.at_rest().await;
    let gate = TempDir::new("it-gate").unwrap();
    let go = gate.path().join("go");
    let point = format!("payment/begin_cancel.after=return(until {})", go.display());
    let process = Process::start_failing(stores, &point).await;
    let mut lock = stores.mysql.begin().await.unwrap();
    let select = "SELECT n FROM outbox_checkpoints FOR UPDATE";
    sqlx::query(select).fetch_all(&mut *lock).await.unwrap();
    api.pay(&guest.token, &reservation, &new_key()).await.expect(201);
    let path = format!("/v1/reservations/{reservation}/cancel");
    let held = process.api();
    let cancel = held.post(&path).user(&guest.user).key(&new_key()).try_send();
    let lost = async {
        process.reached("payment/begin_cancel.after").await;
        let had = generations(stores).await;
        stores.redis().await.ask(&["FLUSHALL"]).await;
        lock.rollback().await.unwrap();
        crate::recovery::restore::laid_back(&world, &had).await;
        std::fs::write(&go, "").unwrap();
    };
    let (_unknown, ()) = tokio::join!(cancel, lost);
    settled(stores).await;
    assert_eq!(api.balance(&guest.user).await, CHARGED);
    stores.audit().await;
    process.kill().await;
}
