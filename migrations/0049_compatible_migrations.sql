-- The migrations with which the release before them can still work, because they only
-- add what that release ignores. Each declares itself at its end:
--   INSERT IGNORE INTO compatible_migrations (version) VALUES (60);
-- A binary accepts a migration that it does not know when it is listed here, so one step back is
-- possible. It refuses any other by name.
CREATE TABLE IF NOT EXISTS compatible_migrations (
    version BIGINT NOT NULL PRIMARY KEY
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
