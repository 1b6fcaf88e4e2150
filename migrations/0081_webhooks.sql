-- Endpoints of other systems that get events. `types` is a list separated by commas. `version`
-- changes with every change by an operator, so that the instance that delivers notices it.
-- `read_cursor` is behind the last event that was delivered. While the endpoint fails,
-- `failing_since`, `attempts` and `next_attempt_at` say since when and what comes next. The
-- instance with the lease delivers; a lease that is not renewed ends.
CREATE TABLE IF NOT EXISTS webhooks (
    id               VARCHAR(64)      NOT NULL PRIMARY KEY,
    version          BIGINT UNSIGNED  NOT NULL,
    url              VARCHAR(2048)    NOT NULL,
    types            VARCHAR(512)     NOT NULL,
    active           BOOLEAN          NOT NULL,
    secret           VARCHAR(255)     NOT NULL,
    old_secret       VARCHAR(255)     NULL,
    old_secret_until DATETIME(3)      NULL,
    read_cursor      MEDIUMTEXT       NOT NULL,
    created_at       DATETIME(3)      NOT NULL,
    delivered_at     DATETIME(3)      NULL,
    attempts         INT UNSIGNED     NOT NULL DEFAULT 0,
    failing_since    DATETIME(3)      NULL,
    next_attempt_at  DATETIME(3)      NULL,
    disabled_reason  VARCHAR(32)      NULL,
    lease_owner      BINARY(16)       NULL,
    lease_until      DATETIME(3)      NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- The last attempts of each webhook. `status_code` is null when there was no answer.
CREATE TABLE IF NOT EXISTS webhook_deliveries (
    id          BIGINT UNSIGNED   NOT NULL AUTO_INCREMENT PRIMARY KEY,
    webhook_id  VARCHAR(64)       NOT NULL,
    event_id    VARCHAR(96)       NOT NULL,
    event_type  VARCHAR(32)       NOT NULL,
    status_code SMALLINT UNSIGNED NULL,
    error       VARCHAR(200)      NULL,
    duration_ms INT UNSIGNED      NOT NULL,
    at          DATETIME(3)       NOT NULL,
    KEY webhook_deliveries_of_webhook (webhook_id, id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

INSERT IGNORE INTO compatible_migrations (version) VALUES (81);
