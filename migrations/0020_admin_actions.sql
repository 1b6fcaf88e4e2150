-- The audit log of the admin API. A row is inserted before a call is executed, and its status is
-- set afterwards. A null status means that the call is running or its result is unknown. `key_id`
-- identifies the key without revealing it. `object` is the name in the path. Bodies are not stored.
CREATE TABLE IF NOT EXISTS admin_actions (
    id         BIGINT UNSIGNED   NOT NULL AUTO_INCREMENT PRIMARY KEY,
    at         DATETIME(3)       NOT NULL,
    key_id     CHAR(8)           NOT NULL,
    peer       VARCHAR(64)       NOT NULL,
    request_id VARCHAR(64)       NOT NULL,
    method     VARCHAR(16)       NOT NULL,
    route      VARCHAR(128)      NOT NULL,
    object     VARCHAR(64)       NULL,
    status     SMALLINT UNSIGNED NULL,
    KEY admin_actions_at (at)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
