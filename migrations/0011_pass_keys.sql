-- The Ed25519 keys that sign passes, PKCS #8, newest last. Whoever reads this table can make passes; it holds nothing else worth having.
-- A key signs once it has been published for two minutes and until a newer one does; `retired_at` says since when it has not.
CREATE TABLE IF NOT EXISTS pass_keys (
    kid        VARCHAR(16)    NOT NULL PRIMARY KEY,
    pkcs8      VARBINARY(255) NOT NULL,
    created_at DATETIME(3)    NOT NULL,
    retired_at DATETIME(3)    NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
