//! Usher's scripts behind their coalescers, called as the service's routes call them, without HTTP before them. What they leave in the outbox is
//! brought to MySQL by the writers of the services that run beside.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;
use usher::coupons::{self, Coupons};
use usher::idempotency::Keyed;
use usher::ids::{QueueId, UserId};
use usher::money::Money;
use usher::mysql::{self, generation};
use usher::outbox::{AckSettings, Writer};
use usher::partition::Partitions;
use usher::queue::{Queue, Signer};
use usher::redis::{Keys, Reach, Redis, Settings};
use usher::wallet::Wallet;
use uuid::Uuid;

use crate::Failure;
use crate::usher_books::{LINE, coupon_name, user_id};
use crate::work::{Answer, Failed, Outcome, Strategy, Work};

/// The rooms of one instance.
pub(crate) struct UsherScripts {
    wallet: Wallet,
    coupons: Coupons,
    queue: Arc<Queue>,
    line: QueueId,
}

impl UsherScripts {
    /// Rooms over the stores of services that serve already.
    pub(crate) async fn open(redis_url: &str, mysql_url: &str) -> Result<Self, Failure> {
        let settings = Settings {
            url: SecretString::from(redis_url),
            ca_file: None,
            command_timeout: Duration::from_secs(5),
            may_forget: false,
            reach: Reach::default(),
        };
        let redis = Redis::connect(&settings, Keys::new("usher", Partitions::default())).await?;
        let mysql = mysql::connect(mysql_url, 4).await?;
        for checkpoint in generation::load(&mysql, Partitions::default()).await? {
            redis
                .generations()
                .open(checkpoint.partition, checkpoint.generation.ok_or("a partition does not serve")?);
        }
        // The services have verified this Redis a moment ago.
        let all: Vec<_> = redis.keys().partitions().all().collect();
        redis.trust(&all, redis.doubts());
        let signer = Signer::new(&[("k1".to_owned(), SecretString::from(Uuid::new_v4().to_string()))]);
        let queue = Queue::new(redis.clone(), mysql.clone(), signer, CancellationToken::new());
        // This writer never runs: those of the services do the work.
        let accepted = AckSettings { durable: false, patience: Duration::ZERO };
        let nudge = Writer::new(redis.clone(), mysql.clone(), accepted).nudge();
        Ok(Self {
            wallet: Wallet::new(redis.clone(), mysql.clone(), nudge.clone()),
            coupons: Coupons::new(redis, mysql, nudge),
            queue: Arc::new(queue),
            line: LINE.parse()?,
        })
    }

    /// Takes notice of what an operator has defined.
    pub(crate) async fn reload(&self) -> Result<(), Failure> {
        self.queue.reload().await?;
        Ok(self.coupons.reload().await?)
    }

    async fn do_it(&self, work: &Work) -> Outcome {
        match *work {
            Work::Move { user, amount } => {
                let key = Uuid::new_v4();
                let keyed =
                    Keyed { user: user_of(user)?, key: key.to_string(), fingerprint: *key.as_bytes() };
                let money = Money::new(amount.abs()).ok_or(Failed::Broken)?;
                let moved = match amount {
                    ..0 => self.wallet.use_up(keyed, money).await,
                    _ => self.wallet.charge(keyed, money).await,
                };
                moved.map(|_| Answer::Done).map_err(broken)
            }
            Work::Token { user } => {
                let (place, new) = self.queue.join(&self.line, user_of(user)?).await.map_err(broken)?;
                self.queue.sign(&place.claims);
                Ok(if new { Answer::Done } else { Answer::Known })
            }
            Work::Issue { coupon, user } => {
                let coupon = coupon_name(coupon).parse().map_err(broken)?;
                match self.coupons.issue(&coupon, user_of(user)?).await {
                    Ok(given) if given.fresh => Ok(Answer::Done),
                    Ok(_) => Ok(Answer::Known),
                    Err(coupons::Error::SoldOut) => Ok(Answer::Refused),
                    Err(error) => Err(broken(error)),
                }
            }
        }
    }
}

fn user_of(user: u64) -> Result<UserId, Failed> {
    user_id(user).to_string().parse().map_err(broken)
}

fn broken(error: impl std::fmt::Display) -> Failed {
    eprintln!("strategies: Usher's scripts: {error}");
    Failed::Broken
}

impl Strategy for UsherScripts {
    fn work<'a>(&'a self, work: &'a Work) -> BoxFuture<'a, Outcome> {
        Box::pin(self.do_it(work))
    }
}
