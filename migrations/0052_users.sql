-- The ids of users that are not UUIDs. All other tables have the key of 16 bytes, which is the
-- SHA-256 of the string. A UUID is its own key and has no row here.
CREATE TABLE IF NOT EXISTS users (
    user_id     BINARY(16)   NOT NULL PRIMARY KEY,
    name        VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    recorded_at DATETIME(3)  NOT NULL,
    UNIQUE KEY users_name (name)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
