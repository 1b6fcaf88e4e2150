//! The strategies that are compared, in the order of the table.

use std::sync::Arc;

use crate::BoxError;
use crate::load::{ComparedStrategy, StoredState};
use crate::naive_service::{NaiveService, RowGuard};
use crate::servers::{INSTANCE_COUNT, StrategyServers};
use crate::strategies::kafka_partition::KafkaPartition;
use crate::strategies::lease_lock::LeaseLocks;
use crate::strategies::optimistic_version::OptimisticVersion;
use crate::strategies::process_mutex::{MutexInside, MutexOutside, MutexPerKey};
use crate::strategies::pubsub_lock::PubsubLock;
use crate::strategies::rabbitmq_queue::RabbitMqQueue;
use crate::strategies::redlock::RedlockLock;
use crate::strategies::row_lock::RowLock;
use crate::strategies::simple_lock::SimpleLock;
use crate::strategies::spin_lock::SpinLock;
use crate::strategies::usher_http::UsherHttp;
use crate::usher_process::ServiceAddresses;
use crate::usher_state::UsherState;
use crate::work_item::LockStrategy;

/// Name of the row that the ratios refer to.
pub(crate) const USHER: &str = "Usher";

type StrategyInstances = Vec<Arc<dyn LockStrategy>>;

fn instance(strategy: impl LockStrategy + 'static) -> Arc<dyn LockStrategy> {
    Arc::new(strategy)
}

/// The strategies that need no broker. There is one service per instance.
pub(crate) async fn without_brokers(
    services: &[NaiveService],
    lock_urls: &[String],
) -> Result<Vec<ComparedStrategy>, BoxError> {
    let per_service = |new: &dyn Fn(NaiveService) -> Arc<dyn LockStrategy>| {
        services.iter().cloned().map(new).collect::<StrategyInstances>()
    };
    let row_lock = |guard| per_service(&|service| instance(RowLock(service, guard)));
    let inside = |service| instance(MutexInside::new(service));
    let outside = |service| instance(MutexOutside::new(service));
    let per_key = |service| instance(MutexPerKey::new(service));
    let optimistic = per_service(&|service| instance(OptimisticVersion(service)));

    let (mut simple, mut spin, mut pubsub, mut redlock) = (vec![], vec![], vec![], vec![]);
    for service in services {
        let url = &lock_urls[0];
        simple.push(instance(SimpleLock(service.clone(), LeaseLocks::connect(url).await?)));
        spin.push(instance(SpinLock(service.clone(), LeaseLocks::connect(url).await?)));
        pubsub.push(instance(PubsubLock::new(service.clone(), url).await?));
        let mut servers = Vec::new();
        for url in lock_urls {
            servers.push(LeaseLocks::connect(url).await?);
        }
        redlock.push(instance(RedlockLock(service.clone(), servers)));
    }

    let first = &services[0];
    let all = [
        ("no lock", row_lock(RowGuard::None)),
        ("mutex inside the transaction, one instance", vec![inside(first.clone())]),
        ("mutex around it, one instance", vec![outside(first.clone())]),
        ("mutex around it, two instances", per_service(&outside)),
        ("mutex per user, one instance", vec![per_key(first.clone())]),
        ("mutex per user, two instances", per_service(&per_key)),
        ("simple lock (SET NX)", simple),
        ("spin lock with back-off", spin),
        ("pub/sub lock", pubsub),
        ("Redlock over three Redis", redlock),
        ("row lock, shared", row_lock(RowGuard::Shared)),
        ("row lock, exclusive", row_lock(RowGuard::Exclusive)),
        ("optimistic version", optimistic),
    ];
    let state = StoredState::Naive(first.clone());
    let compared = |(name, instances)| ComparedStrategy { name, instances, state: state.clone() };
    Ok(all.into_iter().map(compared).collect())
}

/// All strategies, and a sentence for each one that cannot run on this machine.
pub(crate) async fn all(
    servers: &StrategyServers,
) -> Result<(Vec<ComparedStrategy>, Vec<String>), BoxError> {
    let url = servers.mysql.url_of("shop");
    create_database(&servers.mysql.url()).await?;
    let mut services = vec![NaiveService::create(&url).await?];
    while services.len() < INSTANCE_COUNT {
        services.push(NaiveService::connect(&url).await?);
    }
    let lock_urls: Vec<_> = servers.locks.iter().map(|redis| redis.url()).collect();
    let mut all = without_brokers(&services, &lock_urls).await?;
    let mut skipped = Vec::new();
    let state = StoredState::Naive(services[0].clone());

    // With a broker all instances send requests, and the first one consumes them.
    let mut consumer = Some(services[0].clone());
    if let Some(rabbitmq) = &servers.rabbitmq {
        let mut instances = StrategyInstances::new();
        for _ in 0..INSTANCE_COUNT {
            instances.push(instance(RabbitMqQueue::new(rabbitmq.port(), consumer.take()).await?));
        }
        all.push(ComparedStrategy { name: "RabbitMQ queue", instances, state: state.clone() });
    } else {
        skipped.push("RabbitMQ queue: RabbitMQ is not installed".to_owned());
    }
    let mut consumer = Some(services[0].clone());
    if let Some(kafka) = &servers.kafka {
        KafkaPartition::create_topics(kafka.port()).await?;
        let mut instances = StrategyInstances::new();
        for number in (0..).take(INSTANCE_COUNT) {
            let strategy = KafkaPartition::new(kafka.port(), number, consumer.take()).await?;
            instances.push(instance(strategy));
        }
        all.push(ComparedStrategy { name: "Kafka partition", instances, state });
    } else {
        skipped.push("Kafka partition: no broker with the Kafka protocol is installed".to_owned());
    }

    let addresses = servers.services.iter().map(|service| service.addresses.clone()).collect();
    all.push(usher(addresses, &servers.mysql.url()).await?);
    Ok((all, skipped))
}

/// Usher, over instances that are running.
pub(crate) async fn usher(
    services: Vec<ServiceAddresses>,
    mysql_url: &str,
) -> Result<ComparedStrategy, BoxError> {
    let instances = services.iter().map(|it| instance(UsherHttp::new(it.public))).collect();
    let state = UsherState { services, mysql: usher::mysql::connect(mysql_url, 2).await? };
    state.create_queue().await?;
    Ok(ComparedStrategy { name: USHER, instances, state: StoredState::Usher(Arc::new(state)) })
}

/// Creates the naive service's database in the same server as Usher's.
pub(crate) async fn create_database(url: &str) -> Result<(), BoxError> {
    let pool = usher::mysql::connect(url, 1).await?;
    sqlx::Executor::execute(&pool, "CREATE DATABASE shop").await?;
    Ok(())
}
