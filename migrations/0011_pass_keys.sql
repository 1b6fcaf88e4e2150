-- The Ed25519 keys that sign passes, as PKCS #8, newest last. They are secret: with one of them an
-- attacker can forge passes. A key signs from two minutes after its publication until a newer key
-- signs; `retired_at` is when it stopped.
CREATE TABLE IF NOT EXISTS pass_keys (
    kid        VARCHAR(16)    NOT NULL PRIMARY KEY,
    pkcs8      VARBINARY(255) NOT NULL,
    created_at DATETIME(3)    NOT NULL,
    retired_at DATETIME(3)    NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
