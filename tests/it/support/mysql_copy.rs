//! A MySQL that goes back, as after a failover to a replica that lacks the last transactions, or
//! after the restore of a backup.

use sqlx::{AssertSqlSafe, MySqlConnection};

use super::servers::TestStores;

/// A consistent copy of a test's database.
pub(crate) struct MysqlCopy {
    database: String,
    /// Each table with its columns, without those that are generated.
    tables: Vec<(String, String)>,
}

async fn run(connection: &mut MySqlConnection, statement: String) {
    sqlx::query(AssertSqlSafe(statement)).execute(connection).await.unwrap();
}

/// Waits for the writers. The caller's transaction then has the only access.
async fn lock(connection: &mut MySqlConnection) -> Vec<Option<u64>> {
    let select = "SELECT generation FROM outbox_checkpoints ORDER BY partition_id FOR UPDATE";
    sqlx::query_scalar(select).fetch_all(connection).await.unwrap()
}

impl TestStores {
    pub(crate) async fn copy_mysql(&self) -> MysqlCopy {
        let database = format!("{}_{}", self.prefix, uuid::Uuid::new_v4().simple());
        let columns = "SELECT CAST(table_name AS CHAR), CAST(GROUP_CONCAT(column_name) AS CHAR) \
                       FROM information_schema.columns WHERE table_schema = DATABASE() AND extra \
                       NOT LIKE '%GENERATED%' GROUP BY table_name";
        let tables: Vec<(String, String)> =
            sqlx::query_as(columns).fetch_all(&self.mysql).await.unwrap();
        let mut connection = self.mysql.acquire().await.unwrap();
        run(&mut connection, format!("CREATE DATABASE {database}")).await;
        for (table, _) in &tables {
            run(&mut connection, format!("CREATE TABLE {database}.{table} LIKE {table}")).await;
        }
        drop(connection);
        let mut tx = self.mysql.begin().await.unwrap();
        lock(&mut tx).await;
        for (table, columns) in &tables {
            let fill =
                format!("INSERT INTO {database}.{table} ({columns}) SELECT {columns} FROM {table}");
            run(&mut tx, fill).await;
        }
        tx.commit().await.unwrap();
        MysqlCopy { database, tables }
    }

    /// Replaces the content of the database by the copy. Does nothing when a partition was restored
    /// since: then the copy does not belong to this Redis. Returns whether it was replaced.
    pub(crate) async fn take_mysql_back(&self, copy: &MysqlCopy) -> bool {
        let mut tx = self.mysql.begin().await.unwrap();
        let now = lock(&mut tx).await;
        let select = format!(
            "SELECT generation FROM {}.outbox_checkpoints ORDER BY partition_id",
            copy.database
        );
        let then: Vec<Option<u64>> =
            sqlx::query_scalar(AssertSqlSafe(select)).fetch_all(&mut *tx).await.unwrap();
        if now != then {
            return false;
        }
        for (table, columns) in &copy.tables {
            run(&mut tx, format!("DELETE FROM {table}")).await;
            let fill = format!(
                "INSERT INTO {table} ({columns}) SELECT {columns} FROM {}.{table}",
                copy.database
            );
            run(&mut tx, fill).await;
        }
        tx.commit().await.unwrap();
        true
    }
}
