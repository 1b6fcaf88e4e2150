-- Outbox entries of which something could not be brought to MySQL. The line behind them went on, and Redis keeps them no more: what is here is all
-- there is. `events` are the places in the entry of those that were refused, null when the entry can't be read; `payload` is the whole entry.
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
