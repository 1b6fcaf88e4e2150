-- Outbox entries with events that MySQL refused. The writer continued behind them and trimmed them
-- from Redis, so this is the only copy. `payload` is the whole entry. `events` are the indexes of
-- the refused events in it, null if the entry cannot be decoded.
CREATE TABLE IF NOT EXISTS dead_letters (
    partition_id SMALLINT UNSIGNED NOT NULL,
    n            BIGINT UNSIGNED   NOT NULL,
    version      VARCHAR(64)       NOT NULL,
    payload      MEDIUMBLOB        NOT NULL,
    events       JSON              NULL,
    cause        TEXT              NOT NULL,
    buried_at    DATETIME(3)       NOT NULL,
    PRIMARY KEY (partition_id, n)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
