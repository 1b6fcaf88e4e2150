//! Who is compared, in the order of the table.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::Failure;
use crate::load::{Books, Contender};
use crate::shop::{Guard, Shop};
use crate::stack::{INSTANCES, Stack};
use crate::strategies::kafka::Kafka;
use crate::strategies::lease::Locks;
use crate::strategies::mutex_inside::MutexInside;
use crate::strategies::mutex_outside::MutexOutside;
use crate::strategies::mutex_per_user::MutexPerUser;
use crate::strategies::optimistic::Optimistic;
use crate::strategies::pubsub_lock::PubsubLock;
use crate::strategies::rabbitmq::RabbitMq;
use crate::strategies::redlock::Redlock;
use crate::strategies::row_lock::RowLock;
use crate::strategies::simple_lock::SimpleLock;
use crate::strategies::spin_lock::SpinLock;
use crate::strategies::usher_http::UsherHttp;
use crate::strategies::usher_scripts::UsherScripts;
use crate::usher_books::UsherBooks;
use crate::work::Strategy;

/// What ratios are of. Its names begin with it.
pub(crate) const USHER: &str = "Usher";

/// The strategies over the shop, each built for every instance from what that instance owns.
pub(crate) async fn over_shop(shops: &[Shop], locks: &[String]) -> Result<Vec<Contender>, Failure> {
    let mut all = Vec::new();
    let mut add = |name, instances: Vec<Arc<dyn Strategy>>| {
        all.push(Contender { name, instances, books: Books::Shop(shops[0].clone()) });
    };
    let rows = |guard| {
        shops.iter().map(|shop| Arc::new(RowLock(shop.clone(), guard)) as Arc<dyn Strategy>).collect()
    };
    add("no lock", rows(Guard::None));
    add("mutex inside the transaction, one instance", vec![Arc::new(MutexInside::new(shops[0].clone()))]);
    add("mutex around it, one instance", vec![Arc::new(MutexOutside::new(shops[0].clone()))]);
    let around = shops.iter().map(|shop| Arc::new(MutexOutside::new(shop.clone())) as Arc<dyn Strategy>);
    add("mutex around it, two instances", around.collect());
    add("mutex per user, one instance", vec![Arc::new(MutexPerUser::new(shops[0].clone()))]);
    let per_user = shops.iter().map(|shop| Arc::new(MutexPerUser::new(shop.clone())) as Arc<dyn Strategy>);
    add("mutex per user, two instances", per_user.collect());

    let (mut simple, mut spin, mut pubsub, mut redlock) = (vec![], vec![], vec![], vec![]);
    for shop in shops {
        simple
            .push(Arc::new(SimpleLock(shop.clone(), Locks::connect(&locks[0]).await?)) as Arc<dyn Strategy>);
        spin.push(Arc::new(SpinLock(shop.clone(), Locks::connect(&locks[0]).await?)) as Arc<dyn Strategy>);
        pubsub.push(Arc::new(PubsubLock::new(shop.clone(), &locks[0]).await?) as Arc<dyn Strategy>);
        let mut all = Vec::new();
        for url in locks {
            all.push(Locks::connect(url).await?);
        }
        redlock.push(Arc::new(Redlock(shop.clone(), all)) as Arc<dyn Strategy>);
    }
    add("simple lock (SET NX)", simple);
    add("spin lock with back-off", spin);
    add("pub/sub lock", pubsub);
    add("Redlock over three Redis", redlock);
    add("row lock, shared", rows(Guard::Shared));
    add("row lock, exclusive", rows(Guard::Exclusive));
    let optimistic = shops.iter().map(|shop| Arc::new(Optimistic(shop.clone())) as Arc<dyn Strategy>);
    add("optimistic version", optimistic.collect());
    Ok(all)
}

/// Everybody, and the names of those who can't take part with the reason.
pub(crate) async fn all(stack: &Stack) -> Result<(Vec<Contender>, Vec<String>), Failure> {
    let url = stack.mysql.url_of("shop");
    make_database(&stack.mysql.url()).await?;
    let mut shops = vec![Shop::open(&url).await?];
    while shops.len() < INSTANCES {
        shops.push(Shop::connect(&url).await?);
    }
    let locks: Vec<_> = stack.locks.iter().map(|redis| redis.url()).collect();
    let (mut all, mut skipped) = (over_shop(&shops, &locks).await?, Vec::new());
    let books = Books::Shop(shops[0].clone());

    // One consumer, whose shop it is; every instance asks.
    let mut consumer = Some(shops[0].clone());
    if let Some(rabbitmq) = &stack.rabbitmq {
        let mut instances: Vec<Arc<dyn Strategy>> = Vec::new();
        for _ in 0..INSTANCES {
            instances.push(Arc::new(RabbitMq::new(rabbitmq.port(), consumer.take()).await?));
        }
        all.push(Contender { name: "RabbitMQ queue", instances, books: books.clone() });
    } else {
        skipped.push("RabbitMQ queue: RabbitMQ is not installed".to_owned());
    }
    let mut consumer = Some(shops[0].clone());
    if let Some(kafka) = &stack.kafka {
        Kafka::lay(kafka.port()).await?;
        let mut instances: Vec<Arc<dyn Strategy>> = Vec::new();
        for number in (0..).take(INSTANCES) {
            instances.push(Arc::new(Kafka::new(kafka.port(), number, consumer.take()).await?));
        }
        all.push(Contender { name: "Kafka partition", instances, books: books.clone() });
    } else {
        skipped.push("Kafka partition: no broker of Kafka's protocol is installed".to_owned());
    }

    let public: Vec<_> = stack.services.iter().map(|service| service.public).collect();
    let (redis, mysql) = (stack.redis.url(), stack.mysql.url());
    all.extend(ushers(public, stack.services[0].admin, &stack.authorization, &redis, &mysql).await?);
    Ok((all, skipped))
}

/// Usher itself, over services that serve: its scripts alone, and what its clients meet.
pub(crate) async fn ushers(
    public: Vec<SocketAddr>,
    admin: SocketAddr,
    authorization: &str,
    redis_url: &str,
    mysql_url: &str,
) -> Result<Vec<Contender>, Failure> {
    let mut scripts = Vec::new();
    for _ in 0..INSTANCES {
        scripts.push(Arc::new(UsherScripts::open(redis_url, mysql_url).await?));
    }
    let books = Arc::new(UsherBooks {
        public: public.clone(),
        admin,
        authorization: authorization.to_owned(),
        mysql: usher::mysql::connect(mysql_url, 2).await?,
        scripts: scripts.clone(),
    });
    books.open().await?;
    let scripts = scripts.into_iter().map(|it| it as Arc<dyn Strategy>).collect();
    let http =
        public.into_iter().map(|address| Arc::new(UsherHttp::new(address)) as Arc<dyn Strategy>).collect();
    let books = Books::Usher(books);
    Ok(vec![
        Contender { name: "Usher's scripts, no HTTP", instances: scripts, books: books.clone() },
        Contender { name: USHER, instances: http, books },
    ])
}

/// Makes the shop's database beside Usher's, in the same server.
pub(crate) async fn make_database(url: &str) -> Result<(), Failure> {
    let pool = usher::mysql::connect(url, 1).await?;
    sqlx::Executor::execute(&pool, "CREATE DATABASE shop").await?;
    Ok(())
}
