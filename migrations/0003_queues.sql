-- Settings of a queue, one column each, so that operators can read and compare them. Live counts
-- are only in Redis. `version` is the definitions' version at which the row last changed.
-- `placement` ("fifo" or "lottery") is `order` in the API, which is a reserved word in SQL. `seed`
-- determines the positions of the lottery and is secret until the queue opens.
CREATE TABLE IF NOT EXISTS queues (
    id                   VARCHAR(64)     NOT NULL PRIMARY KEY,
    version              BIGINT UNSIGNED NOT NULL,
    mode                 VARCHAR(16)     NOT NULL,
    promote_per_interval INT UNSIGNED    NOT NULL,
    interval_ms          INT UNSIGNED    NOT NULL,
    max_active           INT UNSIGNED    NOT NULL,
    active_seconds       INT UNSIGNED    NOT NULL,
    claim_seconds        INT UNSIGNED    NOT NULL,
    max_waiting          INT UNSIGNED    NULL,
    opens_at             DATETIME(3)     NULL,
    closes_at            DATETIME(3)     NULL,
    prequeue_starts_at   DATETIME(3)     NULL,
    placement            VARCHAR(16)     NOT NULL,
    seed                 CHAR(32)        NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
