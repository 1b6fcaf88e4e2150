//! Usher over HTTP: a release build in separate processes.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex as StdMutex, PoisonError};

use futures::future::BoxFuture;
use uuid::Uuid;

use crate::connection::HttpConnection;
use crate::usher_state::{QUEUE_ID, coupon_id, user_id};
use crate::work_item::{LockStrategy, WorkAnswer, WorkFailure, WorkItem, WorkResult};

pub(crate) struct UsherHttp {
    address: SocketAddr,
    idle: StdMutex<Vec<HttpConnection>>,
    /// Prefix of this client's idempotency keys.
    key_prefix: String,
    next_key: AtomicU64,
}

impl UsherHttp {
    pub(crate) fn new(address: SocketAddr) -> Self {
        let key_prefix = Uuid::new_v4().simple().to_string();
        Self { address, idle: StdMutex::default(), key_prefix, next_key: AtomicU64::new(0) }
    }

    async fn connection(&self) -> std::io::Result<HttpConnection> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match idle {
            Some(connection) => Ok(connection),
            None => HttpConnection::open(self.address).await,
        }
    }

    async fn send(&self, connection: &mut HttpConnection, item: &WorkItem) -> std::io::Result<u16> {
        match *item {
            WorkItem::Move { user, amount } => {
                let user = user_id(user).to_string();
                let number = self.next_key.fetch_add(1, Ordering::Relaxed);
                let key = format!("{}-{number}", self.key_prefix);
                let path = if amount < 0 { "/v1/wallet/uses" } else { "/v1/wallet/charges" };
                let headers = [("usher-user", user.as_str()), ("idempotency-key", &key)];
                let body = format!(r#"{{"amount":{}}}"#, amount.abs());
                connection.send("POST", path, &headers, &body).await
            }
            WorkItem::Token { user } => {
                let (path, user) =
                    (format!("/v1/queues/{QUEUE_ID}/tokens"), user_id(user).to_string());
                connection.send("POST", &path, &[("usher-user", &user)], "").await
            }
            WorkItem::Issue { coupon, user } => {
                let path = format!("/v1/coupons/{}/issues", coupon_id(coupon));
                connection
                    .send("POST", &path, &[("usher-user", &user_id(user).to_string())], "")
                    .await
            }
        }
    }
}

fn broken(error: std::io::Error) -> WorkFailure {
    eprintln!("strategies: Usher: {error}");
    WorkFailure::Broken
}

impl LockStrategy for UsherHttp {
    fn execute<'a>(&'a self, item: &'a WorkItem) -> BoxFuture<'a, WorkResult> {
        Box::pin(async move {
            let mut connection = self.connection().await.map_err(broken)?;
            let status = self.send(&mut connection, item).await.map_err(broken)?;
            let result = match (item, status) {
                (_, 201) => Ok(WorkAnswer::Done),
                (WorkItem::Token { .. } | WorkItem::Issue { .. }, 200) => Ok(WorkAnswer::Known),
                (WorkItem::Issue { .. }, 409) | (WorkItem::Move { .. }, 402) => {
                    Ok(WorkAnswer::Refused)
                }
                _ => {
                    let body = String::from_utf8_lossy(connection.body());
                    eprintln!("strategies: Usher: {status}: {body}");
                    Err(WorkFailure::Broken)
                }
            };
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            result
        })
    }
}
