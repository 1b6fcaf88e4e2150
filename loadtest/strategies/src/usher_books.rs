//! Usher as an operator sees it: what is laid before a round, and what MySQL and the service say after it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::{MySqlPool, QueryBuilder};
use tokio::time::{Instant, sleep};
use uuid::{Builder, Uuid};

use crate::Failure;
use crate::connection::Connection;
use crate::load::{Round, Tally, Verdict};
use crate::shop::START;
use crate::strategies::usher_http::UsherHttp;
use crate::strategies::usher_scripts::UsherScripts;
use crate::work::{Strategy, Work};

/// The queue that tokens are asked of.
pub(crate) const LINE: &str = "line";

/// How long MySQL, and every instance, may take to have what is awaited.
const WITHIN: Duration = Duration::from_secs(30);
/// The pause between two looks.
const LOOK: Duration = Duration::from_millis(5);

/// A user, as Usher names them. The odd multiplier spreads them over the partitions.
pub(crate) fn user_id(user: u64) -> Uuid {
    let mixed = u128::from(user).wrapping_mul(0x2545_f491_4f6c_dd1d_9e37_79b9_7f4a_7c15);
    Builder::from_random_bytes(mixed.to_be_bytes()).into_uuid()
}

/// A coupon, as Usher names it.
pub(crate) fn coupon_name(coupon: u64) -> String {
    format!("c{coupon}")
}

/// The services, their database, and who else must know of what is defined.
pub(crate) struct UsherBooks {
    pub(crate) public: Vec<SocketAddr>,
    pub(crate) admin: SocketAddr,
    pub(crate) authorization: String,
    pub(crate) mysql: MySqlPool,
    pub(crate) scripts: Vec<Arc<UsherScripts>>,
}

impl UsherBooks {
    /// Makes the line.
    pub(crate) async fn open(&self) -> Result<(), Failure> {
        self.put(&format!("/admin/queues/{LINE}"), r#"{"mode":"paused"}"#).await?;
        self.known_everywhere(&format!("/v1/queues/{LINE}")).await
    }

    /// Lays what a round needs.
    pub(crate) async fn lay(&self, round: &Round) -> Result<(), Failure> {
        if let Some((coupon, quota)) = round.coupon {
            let name = coupon_name(coupon);
            let body = format!(
                r#"{{"title":"{name}","total_quantity":{quota},"discount_amount":1,"min_available_amount":1,
                "issue_starts_at":"2020-01-01T00:00:00Z","issue_ends_at":"2100-01-01T00:00:00Z"}}"#
            );
            self.put(&format!("/admin/coupons/{name}"), &body).await?;
            return self.known_everywhere(&format!("/v1/coupons/{name}")).await;
        }
        if round.moves_money() {
            let first = UsherHttp::new(self.public[0]);
            for user in round.accounts.clone() {
                first.work(&Work::Move { user, amount: START }).await.map_err(|why| why.word())?;
            }
        }
        Ok(())
    }

    async fn put(&self, path: &str, body: &str) -> Result<(), Failure> {
        let mut admin = Connection::open(self.admin).await?;
        let status = admin.send("PUT", path, &[("authorization", &self.authorization)], body).await?;
        if status == 200 { Ok(()) } else { Err(format!("PUT {path} gave {status}").into()) }
    }

    async fn known_everywhere(&self, path: &str) -> Result<(), Failure> {
        for scripts in &self.scripts {
            scripts.reload().await?;
        }
        for address in &self.public {
            let (mut connection, deadline) = (Connection::open(*address).await?, Instant::now() + WITHIN);
            while connection.get(path, &[]).await? != 200 {
                late(deadline, path)?;
                sleep(LOOK).await;
            }
        }
        Ok(())
    }

    /// Waits until MySQL has every line that clients were told of. A place in line is Redis' alone.
    pub(crate) async fn settle(&self, round: &Round, tally: &Tally) -> Result<(), Failure> {
        let wallets = round.accounts.end - round.accounts.start;
        let expected = if round.moves_money() { tally.done + wallets } else { tally.done };
        let deadline = Instant::now() + WITHIN;
        while self.rows(round).await?.is_some_and(|rows| rows < expected) {
            late(deadline, "MySQL")?;
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// Rows that a round has in MySQL, if it is to have any.
    async fn rows(&self, round: &Round) -> Result<Option<u64>, Failure> {
        if let Some((coupon, _)) = round.coupon {
            return Ok(Some(
                self.issues("SELECT COUNT(*) FROM coupon_issues WHERE coupon_id = ?", coupon).await?,
            ));
        }
        if !round.moves_money() {
            return Ok(None);
        }
        let mut query = QueryBuilder::new("SELECT COUNT(*) FROM wallet_entries WHERE user_id IN (");
        let mut users = query.separated(", ");
        for user in round.accounts.clone() {
            users.push_bind(user_id(user).as_bytes().to_vec());
        }
        query.push(")");
        let rows: i64 = query.build_query_scalar().fetch_one(&self.mysql).await?;
        Ok(Some(u64::try_from(rows)?))
    }

    async fn issues(&self, statement: &'static str, coupon: u64) -> Result<u64, Failure> {
        let count: i64 =
            sqlx::query_scalar(statement).bind(coupon_name(coupon)).fetch_one(&self.mysql).await?;
        Ok(u64::try_from(count)?)
    }

    /// Lines of a user's ledger, and what they add up to.
    async fn ledger(&self, user: u64) -> Result<(u64, i64), Failure> {
        let (lines, sum): (i64, i64) = sqlx::query_as(
            "SELECT COUNT(*), CAST(COALESCE(SUM(IF(kind = 'use', -amount, amount)), 0) AS SIGNED) FROM wallet_entries WHERE user_id = ?",
        )
        .bind(user_id(user).as_bytes().as_slice())
        .fetch_one(&self.mysql)
        .await?;
        Ok((u64::try_from(lines)?, sum))
    }

    /// Looks at what a round has left behind.
    pub(crate) async fn audit(&self, round: &Round, tally: &Tally) -> Result<Verdict, Failure> {
        if let Some((coupon, quota)) = round.coupon {
            let rows = self.rows(round).await?.unwrap_or_default();
            let owners = "SELECT COUNT(DISTINCT user_id) FROM coupon_issues WHERE coupon_id = ?";
            return Ok(Verdict::of_coupons(rows, self.issues(owners, coupon).await?, quota));
        }
        if !round.moves_money() {
            // The one whose place was new got the token; a second new place would be a second token.
            return Ok(Verdict { doubled: tally.done.saturating_sub(1), ..Verdict::default() });
        }
        let (mut lines, mut verdict) = (0, Verdict::default());
        let mut connection = Connection::open(self.public[0]).await?;
        for user in round.accounts.clone() {
            let (of_user, sum) = self.ledger(user).await?;
            lines += of_user;
            let id = user_id(user).to_string();
            let status = connection.get("/v1/wallet", &[("usher-user", &id)]).await?;
            let wallet: serde_json::Value = serde_json::from_slice(connection.body())?;
            verdict.lost += u64::from(status != 200 || wallet["balance"].as_i64() != Some(sum));
        }
        let told = tally.done + round.accounts.end - round.accounts.start;
        verdict.lost += told.abs_diff(lines);
        Ok(verdict)
    }
}

fn late(deadline: Instant, what: &str) -> Result<(), Failure> {
    if Instant::now() < deadline { Ok(()) } else { Err(format!("{what} is not there in time").into()) }
}
