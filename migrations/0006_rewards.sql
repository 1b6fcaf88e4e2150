-- Settings of a once-per-user reward. SQL never evaluates the conditions or the reward, so each is
-- one JSON document.
CREATE TABLE IF NOT EXISTS rewards (
    code       VARCHAR(64)     NOT NULL PRIMARY KEY,
    version    BIGINT UNSIGNED NOT NULL,
    title      VARCHAR(255)    NOT NULL,
    starts_at  DATETIME(3)     NOT NULL,
    ends_at    DATETIME(3)     NOT NULL,
    active     BOOLEAN         NOT NULL,
    conditions JSON            NOT NULL,
    reward     JSON            NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
