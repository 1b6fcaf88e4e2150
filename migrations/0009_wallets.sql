-- Balances as of the checkpoint. `slot` is the hash slot of the user (0…4095). It selects the
-- wallets of one partition for a restore or an audit, and it stays the same if the partition count
-- changes.
CREATE TABLE IF NOT EXISTS wallets (
    user_id    BINARY(16)        NOT NULL PRIMARY KEY,
    slot       SMALLINT UNSIGNED NOT NULL,
    balance    BIGINT            NOT NULL,
    updated_at DATETIME(3)       NOT NULL,
    KEY wallets_of_slot (slot),
    CONSTRAINT wallet_is_not_overdrawn CHECK (balance >= 0)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- The ledger. `position` is the place of the ledger entry in its partition's history (n × 256 +
-- index in the outbox entry). It orders entries of the same millisecond and is the cursor of lists,
-- and its unique key refuses an outbox entry that is applied twice.
CREATE TABLE IF NOT EXISTS wallet_entries (
    id         BINARY(16)  NOT NULL PRIMARY KEY,
    user_id    BINARY(16)  NOT NULL,
    position   BIGINT      NOT NULL,
    kind       VARCHAR(16) NOT NULL,
    amount     BIGINT      NOT NULL,
    balance    BIGINT      NOT NULL,
    created_at DATETIME(3) NOT NULL,
    UNIQUE KEY wallet_entries_of_user (user_id, position),
    CONSTRAINT wallet_entry_leaves_no_debt CHECK (balance >= 0)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
