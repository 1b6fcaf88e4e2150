-- The events that `GET /admin/events` and webhooks deliver: the outbox entries that have any, as
-- the scripts wrote them. A row is inserted in the transaction that applies the entry. `epoch`, `n`
-- and the index of an event give its id. `applied` is a JSON list of the indexes that MySQL has;
-- null means all.
--
-- `position` increases in each partition in the order of the commits, because the row lock of the
-- checkpoint separates writers. It jumps ahead when the partition gets a new epoch and when MySQL
-- went back, so a cursor of the time before skips nothing.
CREATE TABLE IF NOT EXISTS events (
    partition_id SMALLINT UNSIGNED NOT NULL,
    position     BIGINT UNSIGNED   NOT NULL,
    epoch        BIGINT UNSIGNED   NOT NULL,
    n            BIGINT UNSIGNED   NOT NULL,
    version      VARCHAR(16)       NOT NULL,
    applied      VARCHAR(2048)     NULL,
    payload      MEDIUMBLOB        NOT NULL,
    written_at   DATETIME(3)       NOT NULL,
    PRIMARY KEY (partition_id, position)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- The last position of each partition, the epoch in which it was given, and the position through
-- which the retention has deleted the events.
CREATE TABLE IF NOT EXISTS event_logs (
    partition_id    SMALLINT UNSIGNED NOT NULL PRIMARY KEY,
    position        BIGINT UNSIGNED   NOT NULL,
    epoch           BIGINT UNSIGNED   NOT NULL,
    deleted_through BIGINT UNSIGNED   NOT NULL DEFAULT 0
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Not compatible: the release before would write changes without their events.
