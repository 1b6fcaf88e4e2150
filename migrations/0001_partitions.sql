-- Every file here can be run again after it was cut off half-way (`IF NOT EXISTS`), because neither MySQL nor MariaDB
-- takes DDL back with its transaction. Rows are laid in by src/mysql/migrate.rs, in a transaction of its own.
--
-- One collation everywhere, utf8mb4_bin: MySQL 8.4 and MariaDB 10.11 both know it, names of queues and concerts differ by
-- case, and nothing is ever searched by language. Times are UTC (the session's time zone is set), in milliseconds.
-- There are no foreign keys: the writer brings each partition's facts in that partition's order, and a payment must not
-- wait for the row of a wallet that lives in another one.

-- The one row of settings that can't change once anything was written: P decides which partition every entity lives in.
CREATE TABLE IF NOT EXISTS usher (
    id         TINYINT UNSIGNED  NOT NULL PRIMARY KEY,
    partitions SMALLINT UNSIGNED NOT NULL,
    created_at DATETIME(3)       NOT NULL,
    CONSTRAINT usher_has_one_row CHECK (id = 1)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- How far the writer has come in each partition's outbox. The row moves in the transaction that applies the entries, so it
-- can't disagree with them; its lock is what keeps two writers apart. `generation` is what Redis must show for the
-- partition; null until one has been agreed on.
CREATE TABLE IF NOT EXISTS outbox_checkpoints (
    partition_id SMALLINT UNSIGNED NOT NULL PRIMARY KEY,
    n            BIGINT UNSIGNED   NOT NULL,
    generation   BIGINT UNSIGNED   NULL,
    updated_at   DATETIME(3)       NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
