-- What was done by the admin API: a line before the call is carried out, its status once it has been. A line without a status belongs to a call that is under
-- way or whose end nobody knows. `key_id` tells keys apart and gives none away; `object` is the name in the path; bodies are not kept.
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
