-- One row for each group of users that were promoted together, as a range of scores instead of a
-- row for each user. The primary key is the event's position in the outbox, which is unique.
CREATE TABLE IF NOT EXISTS promotions (
    partition_id SMALLINT UNSIGNED NOT NULL,
    n            BIGINT UNSIGNED   NOT NULL,
    idx          SMALLINT UNSIGNED NOT NULL,
    queue_id     VARCHAR(64)       NOT NULL,
    from_score   BIGINT            NOT NULL,
    to_score     BIGINT            NOT NULL,
    count        INT UNSIGNED      NOT NULL,
    promoted_at  DATETIME(3)       NOT NULL,
    PRIMARY KEY (partition_id, n, idx),
    KEY promotions_of_queue (queue_id, promoted_at)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
