-- Every migration can be run again after it was interrupted (`IF NOT EXISTS`), because neither
-- MySQL nor MariaDB rolls back DDL. src/mysql/migrate.rs inserts the initial rows in a separate
-- transaction.
--
-- All tables use the collation utf8mb4_bin: MySQL 8.4 and MariaDB 10.11 both know it, names of
-- queues and concerts are case-sensitive, and nothing is searched by language. Times are UTC (the
-- session's time zone is set) with milliseconds.
--
-- There are no foreign keys. The writer applies the events of each partition in that partition's
-- order, and a payment must not wait for the row of a wallet that is in another partition.

-- One row with the partition count. It determines the partition of every entity; only
-- `usher repartition` changes it.
CREATE TABLE IF NOT EXISTS usher (
    id         TINYINT UNSIGNED  NOT NULL PRIMARY KEY,
    partitions SMALLINT UNSIGNED NOT NULL,
    created_at DATETIME(3)       NOT NULL,
    CONSTRAINT usher_has_one_row CHECK (id = 1)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- How far the outbox of each partition is written. The row is updated in the transaction that
-- applies the entries, so the two cannot disagree. Its row lock excludes a second writer.
-- `generation` is the epoch that Redis must have for the partition, null until one has been
-- assigned.
CREATE TABLE IF NOT EXISTS outbox_checkpoints (
    partition_id SMALLINT UNSIGNED NOT NULL PRIMARY KEY,
    n            BIGINT UNSIGNED   NOT NULL,
    generation   BIGINT UNSIGNED   NULL,
    updated_at   DATETIME(3)       NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
