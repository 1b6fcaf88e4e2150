//! Usher as its clients meet it: HTTP to a release build in processes of its own.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex as Lock, PoisonError};

use futures::future::BoxFuture;
use uuid::Uuid;

use crate::connection::Connection;
use crate::usher_books::{LINE, coupon_name, user_id};
use crate::work::{Answer, Failed, Outcome, Strategy, Work};

pub(crate) struct UsherHttp {
    address: SocketAddr,
    idle: Lock<Vec<Connection>>,
    /// Makes idempotency keys that nobody else has.
    seed: String,
    keys: AtomicU64,
}

impl UsherHttp {
    pub(crate) fn new(address: SocketAddr) -> Self {
        let seed = Uuid::new_v4().simple().to_string();
        Self { address, idle: Lock::default(), seed, keys: AtomicU64::new(0) }
    }

    async fn connection(&self) -> std::io::Result<Connection> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match idle {
            Some(connection) => Ok(connection),
            None => Connection::open(self.address).await,
        }
    }

    async fn ask(&self, on: &mut Connection, work: &Work) -> std::io::Result<u16> {
        match *work {
            Work::Move { user, amount } => {
                let user = user_id(user).to_string();
                let key = format!("{}-{}", self.seed, self.keys.fetch_add(1, Ordering::Relaxed));
                let path = if amount < 0 { "/v1/wallet/uses" } else { "/v1/wallet/charges" };
                let headers = [("usher-user", user.as_str()), ("idempotency-key", &key)];
                on.send("POST", path, &headers, &format!(r#"{{"amount":{}}}"#, amount.abs())).await
            }
            Work::Token { user } => {
                let user = user_id(user).to_string();
                on.send("POST", &format!("/v1/queues/{LINE}/tokens"), &[("usher-user", &user)], "").await
            }
            Work::Issue { coupon, user } => {
                let (path, user) =
                    (format!("/v1/coupons/{}/issues", coupon_name(coupon)), user_id(user).to_string());
                on.send("POST", &path, &[("usher-user", &user)], "").await
            }
        }
    }

    async fn do_it(&self, work: &Work) -> Outcome {
        let mut connection = self.connection().await.map_err(broken)?;
        let status = self.ask(&mut connection, work).await.map_err(broken)?;
        let outcome = match (work, status) {
            (_, 201) => Ok(Answer::Done),
            (Work::Token { .. } | Work::Issue { .. }, 200) => Ok(Answer::Known),
            (Work::Issue { .. }, 409) | (Work::Move { .. }, 402) => Ok(Answer::Refused),
            _ => {
                eprintln!("strategies: Usher: {status}: {}", String::from_utf8_lossy(connection.body()));
                Err(Failed::Broken)
            }
        };
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        outcome
    }
}

fn broken(error: std::io::Error) -> Failed {
    eprintln!("strategies: Usher: {error}");
    Failed::Broken
}

impl Strategy for UsherHttp {
    fn work<'a>(&'a self, work: &'a Work) -> BoxFuture<'a, Outcome> {
        Box::pin(self.do_it(work))
    }
}
