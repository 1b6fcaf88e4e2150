//! On real servers: wrong results are counted as wrong, and correct ones are not.

use std::time::Duration;

use futures::future::join_all;
use tokio::time::Instant;
use usher::app::UsherApp;
use usher::config::UsherConfig;
use usher::config::args::{SecretArgs, ServeArgs, StoreArgs};
use usher::dev::{MysqlDurability, PrivateMysql, PrivateRedis, TempDir};
use usher::partition::PartitionCount;
use usher::shutdown::ShutdownSignal;
use uuid::Uuid;

use crate::compared_strategies::{create_database, usher, without_brokers};
use crate::load::{
    AnomalyCounts, AnswerTally, ComparedStrategy, LoadRound, StrategyOutcome, WorkloadKind,
};
use crate::naive_service::{NaiveService, RowGuard, read, write};
use crate::report;
use crate::usher_process::ServiceAddresses;
use crate::work_item::{WorkAnswer, WorkFailure, WorkResult};

struct TestServers {
    mysql: PrivateMysql,
    redis: Vec<PrivateRedis>,
    _dir: TempDir,
}

impl TestServers {
    async fn start(redis_count: usize) -> Self {
        let dir = TempDir::new("strategies").unwrap();
        let path = dir.path().join("mysql");
        let mysql = PrivateMysql::start(&path, MysqlDurability::Test).await.unwrap();
        let start = (0..redis_count).map(async |number: usize| {
            PrivateRedis::start(&dir.path().join(format!("redis{number}"))).await.unwrap()
        });
        Self { redis: join_all(start).await, mysql, _dir: dir }
    }

    async fn naive_services(&self) -> Vec<NaiveService> {
        create_database(&self.mysql.url()).await.unwrap();
        let url = self.mysql.url_of("shop");
        vec![NaiveService::create(&url).await.unwrap(), NaiveService::connect(&url).await.unwrap()]
    }
}

/// Two requests that both read before either writes. Returns their answers and the anomalies.
async fn both_read_first(
    service: &NaiveService,
    round: LoadRound,
    guard: RowGuard,
) -> ([WorkResult; 2], AnomalyCounts) {
    service.prepare(&round).await.unwrap();
    let (mut one, mut other) = (service.begin().await.unwrap(), service.begin().await.unwrap());
    let [first, second] = [round.items[0], round.items[1]];
    let state_of_one = read(&mut one, &first, guard).await.unwrap();
    let state_of_other = read(&mut other, &second, guard).await.unwrap();
    let answer_of_one = write(&mut one, &first, state_of_one, guard).await;
    one.commit().await.unwrap();
    let answer_of_other = write(&mut other, &second, state_of_other, guard).await;
    if answer_of_other.is_ok() {
        other.commit().await.unwrap();
    } else {
        other.rollback().await.unwrap();
    }
    let answers = [answer_of_one, answer_of_other];
    let done = answers.iter().filter(|it| **it == Ok(WorkAnswer::Done)).count() as u64;
    let tally = AnswerTally { done, ..AnswerTally::default() };
    (answers, service.find_anomalies(&round, &tally).await.unwrap())
}

#[tokio::test]
async fn anomalies_of_two_concurrent_requests_are_counted() {
    let servers = TestServers::start(0).await;
    let service = &servers.naive_services().await[0];
    let both = [Ok(WorkAnswer::Done), Ok(WorkAnswer::Done)];
    let one = [Ok(WorkAnswer::Done), Err(WorkFailure::Conflict)];
    let correct = AnomalyCounts::default();
    let two_users = || {
        let mut round = LoadRound::coupon(1, 3);
        // The first user asks twice: drop the repeat.
        round.items.remove(1);
        round
    };
    let check = async |round, guard, answers, anomalies| {
        let result = both_read_first(service, round, guard).await;
        assert_eq!(result, (answers, anomalies), "{guard:?}");
    };
    let lost = AnomalyCounts { lost: 1, ..correct };
    check(LoadRound::wallets(1, 2), RowGuard::None, both, lost).await;
    check(LoadRound::wallets(1, 2), RowGuard::Version, one, correct).await;
    let duplicate = AnomalyCounts { duplicates: 1, ..correct };
    check(LoadRound::token(2), RowGuard::None, both, duplicate).await;
    check(LoadRound::token(2), RowGuard::Version, one, correct).await;
    let above_quota = AnomalyCounts { above_quota: 1, ..correct };
    check(two_users(), RowGuard::None, both, above_quota).await;
    check(two_users(), RowGuard::Version, one, correct).await;
    check(LoadRound::coupon(2, 1), RowGuard::None, both, duplicate).await;
    servers.mysql.stop().await.unwrap();
}

async fn run_round(strategy: &ComparedStrategy, round: &LoadRound) -> (AnswerTally, AnomalyCounts) {
    strategy.state.prepare(round).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(600);
    let (tally, _) = strategy.run_round(round, deadline).await.unwrap();
    strategy.state.wait_until_written(round, &tally).await.unwrap();
    let anomalies = strategy.state.find_anomalies(round, &tally).await.unwrap();
    (tally, anomalies)
}

#[tokio::test(flavor = "multi_thread")]
async fn correct_strategies_lose_nothing() {
    let servers = TestServers::start(3).await;
    let lock_urls: Vec<_> = servers.redis.iter().map(|redis| redis.url()).collect();
    let strategies = without_brokers(&servers.naive_services().await, &lock_urls).await.unwrap();
    let incorrect = ["no lock", "mutex inside", "two instances", "row lock, shared"];
    let correct: Vec<_> = strategies
        .iter()
        .filter(|strategy| !incorrect.iter().any(|word| strategy.name.contains(word)))
        .collect();
    assert_eq!(correct.len(), 8);
    for strategy in correct {
        for round in [LoadRound::wallets(3, 120), LoadRound::token(20), LoadRound::coupon(10, 40)] {
            let (tally, anomalies) = run_round(strategy, &round).await;
            assert_eq!(anomalies.errors(), 0, "{}: {anomalies:?}", strategy.name);
            assert_eq!(tally.sent, round.items.len() as u64);
        }
    }
    servers.mysql.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn usher_loses_nothing_and_answers_every_request() {
    let servers = TestServers::start(1).await;
    let mysql_url = servers.mysql.url();
    let pool = usher::mysql::connect(&mysql_url, 2).await.unwrap();
    usher::mysql::migrate::migrate(&pool, None, PartitionCount::default()).await.unwrap();
    let admin_key = Uuid::new_v4().simple().to_string();
    let config = UsherConfig::new(&ServeArgs {
        secrets: SecretArgs {
            auth: Some("header".to_owned()),
            admin_key: Some(admin_key.clone()),
            token_keys: Some(format!("k1:{}", Uuid::new_v4().simple())),
            ..SecretArgs::default()
        },
        stores: StoreArgs {
            redis_url: Some(servers.redis[0].url()),
            mysql_url: Some(mysql_url.clone()),
            ..StoreArgs::default()
        },
        ..ServeArgs::default()
    });
    let shutdown = ShutdownSignal::new();
    let app = UsherApp::build(config.unwrap(), shutdown.clone()).await.unwrap();
    let free_port = "127.0.0.1:0".parse().unwrap();
    let public = usher::app::listen(free_port).await.unwrap();
    let admin = usher::app::listen(free_port).await.unwrap();
    let addresses = ServiceAddresses::new(
        public.local_addr().unwrap(),
        admin.local_addr().unwrap(),
        &admin_key,
    );
    tokio::spawn(app.serve(public, admin));
    let strategy = usher(vec![addresses], &mysql_url).await.unwrap();
    for (round, done) in [
        (LoadRound::wallets(3, 120), 120),
        (LoadRound::token(20), 1),
        (LoadRound::coupon(10, 40), 10),
    ] {
        let (tally, anomalies) = run_round(&strategy, &round).await;
        assert_eq!(anomalies, AnomalyCounts::default());
        assert_eq!((tally.done, tally.latencies.len()), (done, round.items.len()));
    }

    // A client that was promised more than is stored.
    let round = LoadRound::wallets(1, 2);
    let state = &strategy.state;
    state.prepare(&round).await.unwrap();
    state.wait_until_written(&round, &AnswerTally::default()).await.unwrap();
    let promised = AnswerTally { done: 2, ..AnswerTally::default() };
    assert_eq!(state.find_anomalies(&round, &promised).await.unwrap().lost, 2);
    shutdown.stop();
    servers.mysql.stop().await.unwrap();
}

#[test]
fn figures_count_answered_requests_only() {
    let latencies: Vec<_> = (1..=100).map(Duration::from_millis).collect();
    let failures = [(WorkFailure::Busy, 100)].into();
    let outcome = StrategyOutcome {
        name: "Usher",
        tally: AnswerTally { sent: 200, done: 100, latencies, failures },
        elapsed: Duration::from_secs(2),
        write_delay: Duration::from_secs(2),
        anomalies: AnomalyCounts::default(),
    };
    let figures = (outcome.rate(), outcome.written_rate(), outcome.answered_share());
    assert_eq!(figures, (50.0, 25.0, 0.5));
    assert_eq!((outcome.latency_ms(0.5), outcome.latency_ms(0.99)), (50.0, 99.0));

    let skipped = ["Kafka partition: not installed".to_owned()];
    let text = report::table(WorkloadKind::Wallet, std::slice::from_ref(&outcome), &skipped);
    assert!(text.contains("50.0 % (busy)"), "{text}");
    assert!(text.contains("Skipped: Kafka partition: not installed."), "{text}");
}
