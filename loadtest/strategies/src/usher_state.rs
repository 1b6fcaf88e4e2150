//! Prepares a round in Usher by its admin API, and checks afterwards what MySQL and the service
//! have stored.

use std::time::Duration;

use sqlx::{MySqlPool, QueryBuilder};
use tokio::time::{Instant, sleep};
use uuid::{Builder, Uuid};

use crate::BoxError;
use crate::connection::HttpConnection;
use crate::load::{AnomalyCounts, AnswerTally, LoadRound};
use crate::naive_service::INITIAL_BALANCE;
use crate::strategies::usher_http::UsherHttp;
use crate::usher_process::ServiceAddresses;
use crate::work_item::{LockStrategy, WorkItem};

/// The queue of all tokens.
pub(crate) const QUEUE_ID: &str = "tokens";

/// How long MySQL may take to have a change, and each instance to know a definition.
const VISIBLE_TIMEOUT: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Usher's id of a user. The odd multiplier spreads the users over the partitions.
pub(crate) fn user_id(user: u64) -> Uuid {
    let mixed = u128::from(user).wrapping_mul(0x2545_f491_4f6c_dd1d_9e37_79b9_7f4a_7c15);
    Builder::from_random_bytes(mixed.to_be_bytes()).into_uuid()
}

pub(crate) fn coupon_id(coupon: u64) -> String {
    format!("c{coupon}")
}

pub(crate) struct UsherState {
    pub(crate) services: Vec<ServiceAddresses>,
    pub(crate) mysql: MySqlPool,
}

impl UsherState {
    pub(crate) async fn create_queue(&self) -> Result<(), BoxError> {
        self.put(&format!("/admin/queues/{QUEUE_ID}"), r#"{"mode":"paused"}"#).await?;
        self.wait_until_visible(&format!("/v1/queues/{QUEUE_ID}")).await
    }

    pub(crate) async fn prepare(&self, round: &LoadRound) -> Result<(), BoxError> {
        if let Some((coupon, quota)) = round.coupon {
            let id = coupon_id(coupon);
            let body = format!(
                r#"{{"title":"{id}","total_quantity":{quota},
                "discount_amount":1,"min_available_amount":1,
                "issue_starts_at":"2020-01-01T00:00:00Z","issue_ends_at":"2100-01-01T00:00:00Z"}}"#
            );
            self.put(&format!("/admin/coupons/{id}"), &body).await?;
            return self.wait_until_visible(&format!("/v1/coupons/{id}")).await;
        }
        if round.moves_money() {
            let client = UsherHttp::new(self.services[0].public);
            for user in round.users.clone() {
                let charge = WorkItem::Move { user, amount: INITIAL_BALANCE };
                client.execute(&charge).await.map_err(|failure| failure.word())?;
            }
        }
        Ok(())
    }

    async fn put(&self, path: &str, body: &str) -> Result<(), BoxError> {
        let service = &self.services[0];
        let mut admin = HttpConnection::open(service.admin).await?;
        let headers = [("authorization", service.admin_authorization.as_str())];
        match admin.send("PUT", path, &headers, body).await? {
            200 => Ok(()),
            status => Err(format!("PUT {path}: {status}").into()),
        }
    }

    async fn wait_until_visible(&self, path: &str) -> Result<(), BoxError> {
        for service in &self.services {
            let mut connection = HttpConnection::open(service.public).await?;
            let deadline = Instant::now() + VISIBLE_TIMEOUT;
            while connection.get(path, &[]).await? != 200 {
                check_deadline(deadline, path)?;
                sleep(POLL_INTERVAL).await;
            }
        }
        Ok(())
    }

    /// Waits until MySQL has all confirmed changes. Queue positions are in Redis only.
    pub(crate) async fn wait_until_written(
        &self,
        round: &LoadRound,
        tally: &AnswerTally,
    ) -> Result<(), BoxError> {
        let wallets = round.users.end - round.users.start;
        // Each wallet also has its initial charge.
        let expected = if round.moves_money() { tally.done + wallets } else { tally.done };
        let deadline = Instant::now() + VISIBLE_TIMEOUT;
        while self.stored_rows(round).await?.is_some_and(|rows| rows < expected) {
            check_deadline(deadline, "a change in MySQL")?;
            sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }

    /// Rows of a round in MySQL; none if the round stores nothing there.
    async fn stored_rows(&self, round: &LoadRound) -> Result<Option<u64>, BoxError> {
        if let Some((coupon, _)) = round.coupon {
            let rows = "SELECT COUNT(*) FROM coupon_issues WHERE coupon_id = ?";
            return Ok(Some(self.count_issues(rows, coupon).await?));
        }
        if !round.moves_money() {
            return Ok(None);
        }
        let mut query = QueryBuilder::new("SELECT COUNT(*) FROM wallet_entries WHERE user_id IN (");
        let mut users = query.separated(", ");
        for user in round.users.clone() {
            users.push_bind(user_id(user).as_bytes().to_vec());
        }
        query.push(")");
        let rows: i64 = query.build_query_scalar().fetch_one(&self.mysql).await?;
        Ok(Some(u64::try_from(rows)?))
    }

    async fn count_issues(&self, statement: &'static str, coupon: u64) -> Result<u64, BoxError> {
        let query = sqlx::query_scalar(statement).bind(coupon_id(coupon));
        let count: i64 = query.fetch_one(&self.mysql).await?;
        Ok(u64::try_from(count)?)
    }

    /// Number and sum of a user's ledger entries.
    async fn ledger(&self, user: u64) -> Result<(u64, i64), BoxError> {
        let (entries, sum): (i64, i64) = sqlx::query_as(
            "SELECT COUNT(*), CAST(COALESCE(SUM(IF(kind = 'use', -amount, amount)), 0) AS SIGNED)
             FROM wallet_entries WHERE user_id = ?",
        )
        .bind(user_id(user).as_bytes().as_slice())
        .fetch_one(&self.mysql)
        .await?;
        Ok((u64::try_from(entries)?, sum))
    }

    pub(crate) async fn find_anomalies(
        &self,
        round: &LoadRound,
        tally: &AnswerTally,
    ) -> Result<AnomalyCounts, BoxError> {
        if let Some((coupon, quota)) = round.coupon {
            let rows = self.stored_rows(round).await?.unwrap_or_default();
            let owners = "SELECT COUNT(DISTINCT user_id) FROM coupon_issues WHERE coupon_id = ?";
            let owners = self.count_issues(owners, coupon).await?;
            return Ok(AnomalyCounts::of_coupon(rows, owners, quota));
        }
        let mut anomalies = AnomalyCounts::default();
        if !round.moves_money() {
            // One request may get a new token; any further new token is a second one.
            anomalies.duplicates = tally.done.saturating_sub(1);
            return Ok(anomalies);
        }
        let mut entries = 0;
        let mut connection = HttpConnection::open(self.services[0].public).await?;
        for user in round.users.clone() {
            let (entries_of_user, sum) = self.ledger(user).await?;
            entries += entries_of_user;
            let id = user_id(user).to_string();
            let status = connection.get("/v1/wallet", &[("usher-user", &id)]).await?;
            let wallet: serde_json::Value = serde_json::from_slice(connection.body())?;
            let agrees = status == 200 && wallet["balance"].as_i64() == Some(sum);
            anomalies.lost += u64::from(!agrees);
        }
        let expected = tally.done + round.users.end - round.users.start;
        anomalies.lost += expected.abs_diff(entries);
        Ok(anomalies)
    }
}

fn check_deadline(deadline: Instant, what: &str) -> Result<(), BoxError> {
    if Instant::now() < deadline { Ok(()) } else { Err(format!("timed out: {what}").into()) }
}
