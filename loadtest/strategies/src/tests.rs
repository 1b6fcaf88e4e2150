//! What is counted as wrong is wrong, and what is right is not counted: on real servers.

use std::time::Duration;

use futures::future::join_all;
use tokio::time::Instant;
use usher::app::App;
use usher::config::Config;
use usher::config::args::{SecretArgs, ServeArgs, StoreArgs};
use usher::dev::{Durability, PrivateMysql, PrivateRedis, TempDir};
use usher::partition::Partitions;
use usher::shutdown::Shutdown;
use uuid::Uuid;

use crate::contenders::{make_database, over_shop, ushers};
use crate::load::{Contender, Outcome, Round, Tally, Verdict, Workload};
use crate::shop::{Guard, Shop, act, look};
use crate::work::{Answer, Failed};
use crate::{plot, report};

/// Servers that are thrown away.
struct Servers {
    mysql: PrivateMysql,
    redis: Vec<PrivateRedis>,
    _dir: TempDir,
}

impl Servers {
    async fn start(redis: usize) -> Self {
        let dir = TempDir::new("strategies").unwrap();
        let mysql = PrivateMysql::start(&dir.path().join("mysql"), Durability::Test).await.unwrap();
        let start = (0..redis).map(async |number: usize| {
            PrivateRedis::start(&dir.path().join(format!("redis{number}"))).await.unwrap()
        });
        Self { redis: join_all(start).await, mysql, _dir: dir }
    }

    async fn shops(&self) -> Vec<Shop> {
        make_database(&self.mysql.url()).await.unwrap();
        let url = self.mysql.url_of("shop");
        vec![Shop::open(&url).await.unwrap(), Shop::connect(&url).await.unwrap()]
    }
}

/// Two requests that both look before either writes. Gives what each was told and what the books say.
async fn both_look_first(shop: &Shop, round: &Round, guard: Guard) -> ([Result<Answer, Failed>; 2], Verdict) {
    shop.lay(round).await.unwrap();
    let (mut one, mut other) = (shop.begin().await.unwrap(), shop.begin().await.unwrap());
    let [first, second] = [round.works[0], round.works[1]];
    let seen_by_one = look(&mut one, &first, guard).await.unwrap();
    let seen_by_other = look(&mut other, &second, guard).await.unwrap();
    let said_to_one = act(&mut one, &first, seen_by_one, guard).await;
    one.commit().await.unwrap();
    let said_to_other = act(&mut other, &second, seen_by_other, guard).await;
    if said_to_other.is_ok() {
        other.commit().await.unwrap();
    } else {
        other.rollback().await.unwrap();
    }
    let said = [said_to_one, said_to_other];
    let done = said.iter().filter(|it| **it == Ok(Answer::Done)).count() as u64;
    let tally = Tally { done, ..Tally::default() };
    (said, shop.audit(round, &tally).await.unwrap())
}

#[tokio::test]
async fn what_two_do_that_look_at_once_is_counted() {
    let servers = Servers::start(0).await;
    let shop = &servers.shops().await[0];
    let both = [Ok(Answer::Done), Ok(Answer::Done)];
    let one = [Ok(Answer::Done), Err(Failed::Conflict)];
    let right = Verdict::default();
    let money = || Round::wallets(1, 2);
    let lost = Verdict { lost: 1, ..right };
    assert_eq!(both_look_first(shop, &money(), Guard::None).await, (both, lost));
    assert_eq!(both_look_first(shop, &money(), Guard::Version).await, (one, right));

    let doubled = Verdict { doubled: 1, ..right };
    assert_eq!(both_look_first(shop, &Round::token(2), Guard::None).await, (both, doubled));
    assert_eq!(both_look_first(shop, &Round::token(2), Guard::Version).await, (one, right));

    // Of one coupon two users, then of two coupons one user twice. The first user of a round asks twice.
    let two_users = || {
        let mut round = Round::coupon(1, 3);
        round.works.drain(..1);
        round
    };
    let above = Verdict { above: 1, ..right };
    assert_eq!(both_look_first(shop, &two_users(), Guard::None).await, (both, above));
    assert_eq!(both_look_first(shop, &two_users(), Guard::Version).await, (one, right));
    assert_eq!(both_look_first(shop, &Round::coupon(2, 1), Guard::None).await, (both, doubled));
    servers.mysql.stop().await.unwrap();
}

/// Puts a round on a strategy and says what it came to.
async fn put(contender: &Contender, round: &Round) -> (Tally, Verdict) {
    contender.books.lay(round).await.unwrap();
    let late = Instant::now() + Duration::from_secs(600);
    let (tally, _) = contender.drive(round, late).await.unwrap();
    contender.books.settle(round, &tally).await.unwrap();
    let verdict = contender.books.audit(round, &tally).await.unwrap();
    (tally, verdict)
}

#[tokio::test(flavor = "multi_thread")]
async fn strategies_that_are_right_lose_nothing() {
    let servers = Servers::start(3).await;
    let locks: Vec<_> = servers.redis.iter().map(|redis| redis.url()).collect();
    let contenders = over_shop(&servers.shops().await, &locks).await.unwrap();
    let wrong = ["no lock", "mutex inside", "two instances", "row lock, shared"];
    let right: Vec<_> =
        contenders.iter().filter(|it| !wrong.iter().any(|word| it.name.contains(word))).collect();
    assert_eq!(right.len(), 8);
    for contender in right {
        for round in [Round::wallets(3, 120), Round::token(20), Round::coupon(10, 40)] {
            let (tally, verdict) = put(contender, &round).await;
            assert_eq!(verdict.anomalies(), 0, "{}: {verdict:?}", contender.name);
            assert_eq!(tally.asked, round.works.len() as u64);
        }
    }
    servers.mysql.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn usher_loses_nothing_and_answers_everybody() {
    let servers = Servers::start(1).await;
    let pool = usher::mysql::connect(&servers.mysql.url(), 2).await.unwrap();
    usher::mysql::migrate::migrate(&pool, Partitions::default()).await.unwrap();
    let (admin_key, redis) = (Uuid::new_v4().simple().to_string(), servers.redis[0].url());
    let config = Config::new(&ServeArgs {
        secrets: SecretArgs {
            auth: Some("header".to_owned()),
            admin_key: Some(admin_key.clone()),
            token_keys: Some(format!("k1:{}", Uuid::new_v4().simple())),
            ..SecretArgs::default()
        },
        stores: StoreArgs {
            redis_url: Some(redis.clone()),
            mysql_url: Some(servers.mysql.url()),
            ..StoreArgs::default()
        },
        ..ServeArgs::default()
    });
    let shutdown = Shutdown::new();
    let app = App::build(config.unwrap(), shutdown.clone()).await.unwrap();
    let any = "127.0.0.1:0".parse().unwrap();
    let (public, admin) = (usher::app::listen(any).await.unwrap(), usher::app::listen(any).await.unwrap());
    let addresses = [public.local_addr().unwrap(), admin.local_addr().unwrap()];
    tokio::spawn(app.serve(public, admin));
    let authorization = format!("Bearer {admin_key}");
    let mysql = servers.mysql.url();
    let contenders = ushers(vec![addresses[0]], addresses[1], &authorization, &redis, &mysql).await.unwrap();
    for contender in &contenders {
        for (round, done) in
            [(Round::wallets(3, 120), 120), (Round::token(20), 1), (Round::coupon(10, 40), 10)]
        {
            let (tally, verdict) = put(contender, &round).await;
            assert_eq!(verdict, Verdict::default(), "{}", contender.name);
            assert_eq!((tally.done, tally.took.len()), (done, round.works.len()), "{}", contender.name);
        }
    }

    // A client that was told of more than there is.
    let round = Round::wallets(1, 2);
    let books = &contenders[1].books;
    books.lay(&round).await.unwrap();
    books.settle(&round, &Tally::default()).await.unwrap();
    let told = Tally { done: 2, ..Tally::default() };
    assert_eq!(books.audit(&round, &told).await.unwrap().lost, 2);
    shutdown.stop();
    servers.mysql.stop().await.unwrap();
}

#[test]
fn figures_are_of_what_was_answered() {
    let took: Vec<_> = (1..=100).map(Duration::from_millis).collect();
    let tally = Tally { asked: 200, done: 100, took, failed: [(Failed::Busy, 100)].into() };
    let (elapsed, settling) = (Duration::from_secs(2), Duration::from_secs(2));
    let outcome = Outcome { name: "Usher", tally, elapsed, settling, verdict: Verdict::default() };
    assert_eq!((outcome.rate(), outcome.settled_rate(), outcome.success()), (50.0, 25.0, 0.5));
    assert_eq!((outcome.quantile_ms(0.5), outcome.quantile_ms(0.99)), (50.0, 99.0));

    let text = report::table(
        Workload::Wallet,
        std::slice::from_ref(&outcome),
        &["Kafka partition: not there".to_owned()],
    );
    assert!(
        text.contains("50.0 % (busy)") && text.contains("Skipped: Kafka partition: not there."),
        "{text}"
    );
    let mut wrong = outcome;
    wrong.verdict.lost = 1;
    let drawn = plot::svg(Workload::Wallet, &[wrong]);
    assert!(drawn.starts_with("<svg") && drawn.contains("#c0392b"), "{drawn}");
}
