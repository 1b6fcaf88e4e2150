//! The service that the strategies protect: wallets, tokens and coupons in MySQL, written the
//! obvious way. It reads, decides and writes; what may happen in between depends on the strategy.
//!
//! Each write stores the row version that was read plus one. The version so counts the writes that
//! were based on each other, and the difference to the confirmed writes is what was overwritten.

use sqlx::mysql::{MySqlConnectOptions, MySqlPoolOptions};
use sqlx::{AssertSqlSafe, Executor, MySql, MySqlConnection, MySqlPool, Transaction};

use crate::BoxError;
use crate::load::{AnomalyCounts, AnswerTally, LoadRound};
use crate::work_item::{WorkAnswer, WorkFailure, WorkItem, WorkResult};

/// Per instance.
const POOL_SIZE: u32 = 16;

/// Initial balance of each wallet, so that no request is refused.
pub(crate) const INITIAL_BALANCE: i64 = 10_000_000;

const SCHEMA: [&str; 5] = [
    "CREATE TABLE accounts (
        user BIGINT UNSIGNED PRIMARY KEY, balance BIGINT NOT NULL, version BIGINT NOT NULL)",
    "CREATE TABLE entries (
        id BIGINT AUTO_INCREMENT PRIMARY KEY, user BIGINT UNSIGNED NOT NULL,
        amount BIGINT NOT NULL, balance BIGINT NOT NULL)",
    "CREATE TABLE tokens (
        id BIGINT AUTO_INCREMENT PRIMARY KEY, user BIGINT UNSIGNED NOT NULL, KEY (user))",
    "CREATE TABLE coupons (
        id BIGINT UNSIGNED PRIMARY KEY, quota BIGINT NOT NULL,
        issued BIGINT NOT NULL, version BIGINT NOT NULL)",
    "CREATE TABLE issues (
        id BIGINT AUTO_INCREMENT PRIMARY KEY, coupon BIGINT UNSIGNED NOT NULL,
        user BIGINT UNSIGNED NOT NULL, KEY (coupon, user))",
];

/// How the database guards the row that a request reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowGuard {
    None,
    /// Shared lock at the read.
    Shared,
    /// Exclusive lock at the read.
    Exclusive,
    /// The write requires the version that was read.
    Version,
}

/// The statement without a lock, with a shared lock, with an exclusive lock.
macro_rules! locking {
    ($sql:literal) => {
        [$sql, concat!($sql, " LOCK IN SHARE MODE"), concat!($sql, " FOR UPDATE")]
    };
}

const READ_ACCOUNT: [&str; 3] = locking!("SELECT balance, 0, version FROM accounts WHERE user = ?");
const READ_COUPON: [&str; 3] = locking!("SELECT issued, quota, version FROM coupons WHERE id = ?");

impl RowGuard {
    fn select(self, statements: [&'static str; 3]) -> &'static str {
        match self {
            Self::None | Self::Version => statements[0],
            Self::Shared => statements[1],
            Self::Exclusive => statements[2],
        }
    }
}

/// What a request has read before it decides.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ReadState {
    /// Balance of the wallet, or coupons issued.
    value: i64,
    quota: i64,
    version: i64,
    already_has: bool,
}

pub(crate) async fn read(
    connection: &mut MySqlConnection,
    item: &WorkItem,
    guard: RowGuard,
) -> Result<ReadState, WorkFailure> {
    let mut state = ReadState::default();
    let row = match item {
        WorkItem::Token { .. } if guard == RowGuard::None => None,
        WorkItem::Move { user, .. } | WorkItem::Token { user } => {
            Some((guard.select(READ_ACCOUNT), user))
        }
        WorkItem::Issue { coupon, .. } => Some((guard.select(READ_COUPON), coupon)),
    };
    if let Some((statement, id)) = row {
        (state.value, state.quota, state.version) =
            sqlx::query_as(statement).bind(*id).fetch_one(&mut *connection).await?;
    }
    let existing = match item {
        WorkItem::Move { .. } => return Ok(state),
        WorkItem::Token { user } => {
            sqlx::query("SELECT 1 FROM tokens WHERE user = ? LIMIT 1").bind(*user)
        }
        WorkItem::Issue { coupon, user } => {
            sqlx::query("SELECT 1 FROM issues WHERE coupon = ? AND user = ? LIMIT 1")
                .bind(*coupon)
                .bind(*user)
        }
    };
    state.already_has = existing.fetch_optional(connection).await?.is_some();
    Ok(state)
}

/// Decides by what was read, and writes.
pub(crate) async fn write(
    connection: &mut MySqlConnection,
    item: &WorkItem,
    state: ReadState,
    guard: RowGuard,
) -> WorkResult {
    if state.already_has {
        return Ok(WorkAnswer::Known);
    }
    // Insert the history row, then choose the update of the guarded row. Its values are the new
    // value, the new version and the row's id.
    let (table, value, id) = match *item {
        WorkItem::Move { user, amount } => {
            let balance = state.value + amount;
            if balance < 0 {
                return Ok(WorkAnswer::Refused);
            }
            let entry = sqlx::query("INSERT INTO entries (user, amount, balance) VALUES (?, ?, ?)");
            entry.bind(user).bind(amount).bind(balance).execute(&mut *connection).await?;
            ("UPDATE accounts SET balance = ?, version = ? WHERE user = ?", balance, user)
        }
        WorkItem::Token { user } => {
            let token = sqlx::query("INSERT INTO tokens (user) VALUES (?)");
            token.bind(user).execute(&mut *connection).await?;
            if guard != RowGuard::Version {
                return Ok(WorkAnswer::Done);
            }
            ("UPDATE accounts SET balance = ?, version = ? WHERE user = ?", state.value, user)
        }
        WorkItem::Issue { coupon, user } => {
            if state.value >= state.quota {
                return Ok(WorkAnswer::Refused);
            }
            let issue = sqlx::query("INSERT INTO issues (coupon, user) VALUES (?, ?)");
            issue.bind(coupon).bind(user).execute(&mut *connection).await?;
            ("UPDATE coupons SET issued = ?, version = ? WHERE id = ?", state.value + 1, coupon)
        }
    };
    let condition = if guard == RowGuard::Version { " AND version = ?" } else { "" };
    // Both parts are constants.
    let mut update = sqlx::query(AssertSqlSafe(format!("{table}{condition}")))
        .bind(value)
        .bind(state.version + 1)
        .bind(id);
    if guard == RowGuard::Version {
        update = update.bind(state.version);
    }
    if update.execute(connection).await?.rows_affected() == 0 {
        return Err(WorkFailure::Conflict);
    }
    Ok(WorkAnswer::Done)
}

/// One instance's connection pool.
#[derive(Clone)]
pub(crate) struct NaiveService(MySqlPool);

impl NaiveService {
    /// Creates the tables and connects.
    pub(crate) async fn create(url: &str) -> Result<Self, BoxError> {
        let service = Self::connect(url).await?;
        for table in SCHEMA {
            service.0.execute(table).await?;
        }
        Ok(service)
    }

    pub(crate) async fn connect(url: &str) -> Result<Self, BoxError> {
        let options = MySqlPoolOptions::new()
            .min_connections(POOL_SIZE)
            .max_connections(POOL_SIZE)
            .test_before_acquire(false);
        Ok(Self(options.connect_with(url.parse::<MySqlConnectOptions>()?).await?))
    }

    pub(crate) async fn begin(&self) -> Result<Transaction<'static, MySql>, WorkFailure> {
        Ok(self.0.begin().await?)
    }

    /// Applies one request in one transaction.
    pub(crate) async fn transact(&self, item: &WorkItem, guard: RowGuard) -> WorkResult {
        let mut transaction = self.begin().await?;
        let answer = apply(&mut transaction, item, guard).await?;
        transaction.commit().await?;
        Ok(answer)
    }

    /// Applies requests one after the other in one transaction: all or none.
    pub(crate) async fn apply_batch(
        &self,
        items: &[WorkItem],
    ) -> Result<Vec<WorkAnswer>, WorkFailure> {
        let mut transaction = self.begin().await?;
        let mut answers = Vec::with_capacity(items.len());
        for item in items {
            answers.push(apply(&mut transaction, item, RowGuard::None).await?);
        }
        transaction.commit().await?;
        Ok(answers)
    }

    async fn count(&self, statement: &'static str, values: &[u64]) -> Result<u64, BoxError> {
        let mut query = sqlx::query_scalar::<_, i64>(statement);
        for value in values {
            query = query.bind(*value);
        }
        Ok(u64::try_from(query.fetch_one(&self.0).await?)?)
    }

    /// Creates the wallets or the coupon of a round.
    pub(crate) async fn prepare(&self, round: &LoadRound) -> Result<(), BoxError> {
        let users: Vec<_> =
            round.users.clone().map(|user| format!("({user}, {INITIAL_BALANCE}, 0)")).collect();
        if !users.is_empty() {
            // Safe: the text consists of numbers.
            let rows = AssertSqlSafe(format!("INSERT INTO accounts VALUES {}", users.join(", ")));
            sqlx::query(rows).execute(&self.0).await?;
        }
        if let Some((coupon, quota)) = round.coupon {
            let row = sqlx::query("INSERT INTO coupons VALUES (?, ?, 0, 0)");
            row.bind(coupon).bind(quota).execute(&self.0).await?;
        }
        Ok(())
    }

    /// Counts the anomalies that a round has left.
    pub(crate) async fn find_anomalies(
        &self,
        round: &LoadRound,
        tally: &AnswerTally,
    ) -> Result<AnomalyCounts, BoxError> {
        if let Some((coupon, quota)) = round.coupon {
            let rows = "SELECT COUNT(*) FROM issues WHERE coupon = ?";
            let owners = "SELECT COUNT(DISTINCT user) FROM issues WHERE coupon = ?";
            let (rows, owners) =
                (self.count(rows, &[coupon]).await?, self.count(owners, &[coupon]).await?);
            return Ok(AnomalyCounts::of_coupon(rows, owners, quota));
        }
        let users = [round.users.start, round.users.end];
        let mut anomalies = AnomalyCounts::default();
        if round.moves_money() {
            let writes =
                "SELECT CAST(SUM(version) AS SIGNED) FROM accounts WHERE user >= ? AND user < ?";
            anomalies.lost = tally.done.abs_diff(self.count(writes, &users).await?);
        } else {
            let extra =
                "SELECT COUNT(*) - COUNT(DISTINCT user) FROM tokens WHERE user >= ? AND user < ?";
            anomalies.duplicates = self.count(extra, &users).await?;
        }
        Ok(anomalies)
    }
}

/// Reads, decides and writes inside a transaction.
pub(crate) async fn apply(
    connection: &mut MySqlConnection,
    item: &WorkItem,
    guard: RowGuard,
) -> WorkResult {
    let state = read(connection, item, guard).await?;
    write(connection, item, state, guard).await
}

impl From<sqlx::Error> for WorkFailure {
    fn from(error: sqlx::Error) -> Self {
        let number = error
            .as_database_error()
            .and_then(|it| it.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>())
            .map(|it| it.number());
        match number {
            // Deadlock; lock wait timeout.
            Some(1213 | 1205) => Self::Deadlock,
            _ => {
                eprintln!("strategies: MySQL: {error}");
                Self::Broken
            }
        }
    }
}
