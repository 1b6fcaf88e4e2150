//! The service that the strategies protect: a wallet, a line and coupons in MySQL, written as one writes them first. It reads, decides, and writes
//! what it has decided; whatever happens in between is the strategy's affair.
//!
//! Every write to a row stores the version that was read plus one. So the versions count the writes that were built on one another, and what is
//! missing from them was overwritten.

use sqlx::mysql::{MySqlConnectOptions, MySqlPoolOptions};
use sqlx::{AssertSqlSafe, Executor, MySql, MySqlConnection, MySqlPool, Transaction};

use crate::Failure;
use crate::load::{Round, Tally, Verdict};
use crate::work::{Answer, Failed, Outcome, Work};

/// Connections of one instance.
const CONNECTIONS: u32 = 16;

/// What every wallet holds at first, so that no use is refused.
pub(crate) const START: i64 = 10_000_000;

const SCHEMA: [&str; 5] = [
    "CREATE TABLE accounts (user BIGINT UNSIGNED PRIMARY KEY, balance BIGINT NOT NULL, version BIGINT NOT NULL)",
    "CREATE TABLE entries (id BIGINT AUTO_INCREMENT PRIMARY KEY, user BIGINT UNSIGNED NOT NULL, amount BIGINT NOT NULL, balance BIGINT NOT NULL)",
    "CREATE TABLE tokens (id BIGINT AUTO_INCREMENT PRIMARY KEY, user BIGINT UNSIGNED NOT NULL, KEY (user))",
    "CREATE TABLE coupons (id BIGINT UNSIGNED PRIMARY KEY, quota BIGINT NOT NULL, issued BIGINT NOT NULL, version BIGINT NOT NULL)",
    "CREATE TABLE issues (id BIGINT AUTO_INCREMENT PRIMARY KEY, coupon BIGINT UNSIGNED NOT NULL, user BIGINT UNSIGNED NOT NULL, KEY (coupon, user))",
];

/// What the database itself is asked to do against others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guard {
    /// Nothing.
    None,
    /// The row is locked against writers when it is read.
    Shared,
    /// The row is locked against everybody when it is read.
    Exclusive,
    /// The row must have the version that was read when it is written.
    Version,
}

/// A statement without a lock, with a shared one, with an exclusive one.
macro_rules! locking {
    ($sql:literal) => {
        [$sql, concat!($sql, " LOCK IN SHARE MODE"), concat!($sql, " FOR UPDATE")]
    };
}

const READ_ACCOUNT: [&str; 3] = locking!("SELECT balance, 0, version FROM accounts WHERE user = ?");
const READ_COUPON: [&str; 3] = locking!("SELECT issued, quota, version FROM coupons WHERE id = ?");

impl Guard {
    fn of(self, statements: [&'static str; 3]) -> &'static str {
        match self {
            Self::None | Self::Version => statements[0],
            Self::Shared => statements[1],
            Self::Exclusive => statements[2],
        }
    }
}

/// What a request saw before it decided.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seen {
    number: i64,
    quota: i64,
    version: i64,
    has_it: bool,
}

/// Looks at what the request is about.
pub(crate) async fn look(on: &mut MySqlConnection, work: &Work, guard: Guard) -> Result<Seen, Failed> {
    let mut seen = Seen::default();
    let row = match work {
        Work::Token { .. } if guard == Guard::None => None,
        Work::Move { user, .. } | Work::Token { user } => Some((guard.of(READ_ACCOUNT), user)),
        Work::Issue { coupon, .. } => Some((guard.of(READ_COUPON), coupon)),
    };
    if let Some((statement, id)) = row {
        (seen.number, seen.quota, seen.version) =
            sqlx::query_as(statement).bind(*id).fetch_one(&mut *on).await?;
    }
    let has_it = match work {
        Work::Move { .. } => return Ok(seen),
        Work::Token { user } => sqlx::query("SELECT 1 FROM tokens WHERE user = ? LIMIT 1").bind(*user),
        Work::Issue { coupon, user } => {
            sqlx::query("SELECT 1 FROM issues WHERE coupon = ? AND user = ? LIMIT 1")
                .bind(*coupon)
                .bind(*user)
        }
    };
    seen.has_it = has_it.fetch_optional(on).await?.is_some();
    Ok(seen)
}

/// Decides by what was seen, and writes.
pub(crate) async fn act(on: &mut MySqlConnection, work: &Work, seen: Seen, guard: Guard) -> Outcome {
    let write = match *work {
        _ if seen.has_it => return Ok(Answer::Known),
        Work::Move { user, amount } => {
            let balance = seen.number + amount;
            if balance < 0 {
                return Ok(Answer::Refused);
            }
            let entry = sqlx::query("INSERT INTO entries (user, amount, balance) VALUES (?, ?, ?)");
            entry.bind(user).bind(amount).bind(balance).execute(&mut *on).await?;
            Some(match guard {
                Guard::Version => {
                    sqlx::query("UPDATE accounts SET balance = ?, version = ? WHERE user = ? AND version = ?")
                        .bind(balance)
                        .bind(seen.version + 1)
                        .bind(user)
                        .bind(seen.version)
                }
                _ => sqlx::query("UPDATE accounts SET balance = ?, version = ? WHERE user = ?")
                    .bind(balance)
                    .bind(seen.version + 1)
                    .bind(user),
            })
        }
        Work::Token { user } => {
            sqlx::query("INSERT INTO tokens (user) VALUES (?)").bind(user).execute(&mut *on).await?;
            (guard == Guard::Version).then(|| {
                sqlx::query("UPDATE accounts SET version = ? WHERE user = ? AND version = ?")
                    .bind(seen.version + 1)
                    .bind(user)
                    .bind(seen.version)
            })
        }
        Work::Issue { coupon, user } => {
            if seen.number >= seen.quota {
                return Ok(Answer::Refused);
            }
            let issue = sqlx::query("INSERT INTO issues (coupon, user) VALUES (?, ?)");
            issue.bind(coupon).bind(user).execute(&mut *on).await?;
            Some(match guard {
                Guard::Version => {
                    sqlx::query("UPDATE coupons SET issued = ?, version = ? WHERE id = ? AND version = ?")
                        .bind(seen.number + 1)
                        .bind(seen.version + 1)
                        .bind(coupon)
                        .bind(seen.version)
                }
                _ => sqlx::query("UPDATE coupons SET issued = ?, version = ? WHERE id = ?")
                    .bind(seen.number + 1)
                    .bind(seen.version + 1)
                    .bind(coupon),
            })
        }
    };
    if let Some(write) = write
        && write.execute(on).await?.rows_affected() == 0
    {
        return Err(Failed::Conflict);
    }
    Ok(Answer::Done)
}

/// One instance's way to the database.
#[derive(Clone)]
pub(crate) struct Shop(MySqlPool);

impl Shop {
    /// Makes the tables and connects.
    pub(crate) async fn open(url: &str) -> Result<Self, Failure> {
        let shop = Self::connect(url).await?;
        for table in SCHEMA {
            shop.0.execute(table).await?;
        }
        Ok(shop)
    }

    /// Connects once more, as another instance does.
    pub(crate) async fn connect(url: &str) -> Result<Self, Failure> {
        let options = MySqlPoolOptions::new()
            .min_connections(CONNECTIONS)
            .max_connections(CONNECTIONS)
            .test_before_acquire(false);
        Ok(Self(options.connect_with(url.parse::<MySqlConnectOptions>()?).await?))
    }

    /// Begins a transaction.
    pub(crate) async fn begin(&self) -> Result<Transaction<'static, MySql>, Failed> {
        Ok(self.0.begin().await?)
    }

    /// Does one request in a transaction of its own.
    pub(crate) async fn transact(&self, work: &Work, guard: Guard) -> Outcome {
        let mut tx = self.begin().await?;
        let answer = apply(&mut tx, work, guard).await?;
        tx.commit().await?;
        Ok(answer)
    }

    /// Does requests one after the other in one transaction: all of them, or none.
    pub(crate) async fn batch(&self, works: &[Work]) -> Result<Vec<Answer>, Failed> {
        let mut tx = self.begin().await?;
        let mut answers = Vec::with_capacity(works.len());
        for work in works {
            answers.push(apply(&mut tx, work, Guard::None).await?);
        }
        tx.commit().await?;
        Ok(answers)
    }

    async fn count(&self, statement: &'static str, of: &[u64]) -> Result<u64, Failure> {
        let mut query = sqlx::query_scalar::<_, i64>(statement);
        for id in of {
            query = query.bind(*id);
        }
        Ok(u64::try_from(query.fetch_one(&self.0).await?)?)
    }
}

/// Reads, decides and writes within a transaction.
pub(crate) async fn apply(on: &mut MySqlConnection, work: &Work, guard: Guard) -> Outcome {
    let seen = look(on, work, guard).await?;
    act(on, work, seen, guard).await
}

impl From<sqlx::Error> for Failed {
    fn from(error: sqlx::Error) -> Self {
        let number = error.as_database_error().and_then(|it| {
            it.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>().map(|error| error.number())
        });
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

impl Shop {
    /// Lays what a round needs.
    pub(crate) async fn lay(&self, round: &Round) -> Result<(), Failure> {
        let users: Vec<_> = round.accounts.clone().map(|user| format!("({user}, {START}, 0)")).collect();
        if !users.is_empty() {
            // Numbers alone: nothing here can be anything but SQL.
            let rows = AssertSqlSafe(format!("INSERT INTO accounts VALUES {}", users.join(", ")));
            sqlx::query(rows).execute(&self.0).await?;
        }
        if let Some((coupon, quota)) = round.coupon {
            let row = sqlx::query("INSERT INTO coupons VALUES (?, ?, 0, 0)");
            row.bind(coupon).bind(quota).execute(&self.0).await?;
        }
        Ok(())
    }

    /// Looks at what a round has left behind.
    pub(crate) async fn audit(&self, round: &Round, tally: &Tally) -> Result<Verdict, Failure> {
        let mut verdict = Verdict::default();
        let users = [round.accounts.start, round.accounts.end];
        match round.coupon {
            Some((coupon, quota)) => {
                let rows = self.count("SELECT COUNT(*) FROM issues WHERE coupon = ?", &[coupon]).await?;
                let owners =
                    self.count("SELECT COUNT(DISTINCT user) FROM issues WHERE coupon = ?", &[coupon]).await?;
                verdict = Verdict::of_coupons(rows, owners, quota);
            }
            None if round.moves_money() => {
                let sum = "SELECT CAST(SUM(version) AS SIGNED) FROM accounts WHERE user >= ? AND user < ?";
                verdict.lost = tally.done.abs_diff(self.count(sum, &users).await?);
            }
            None => {
                let more = "SELECT COUNT(*) - COUNT(DISTINCT user) FROM tokens WHERE user >= ? AND user < ?";
                verdict.doubled = self.count(more, &users).await?;
            }
        }
        Ok(verdict)
    }
}
