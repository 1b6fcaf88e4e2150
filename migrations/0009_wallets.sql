-- Balances as of the checkpoint. `slot` is the hash of the user (0…4095), so that one partition's wallets can be read back, or
-- compared with Redis, without reading everybody's; it outlives a change of P.
CREATE TABLE IF NOT EXISTS wallets (
    user_id    BINARY(16)        NOT NULL PRIMARY KEY,
    slot       SMALLINT UNSIGNED NOT NULL,
    balance    BIGINT            NOT NULL,
    updated_at DATETIME(3)       NOT NULL,
    KEY wallets_of_slot (slot),
    CONSTRAINT wallet_is_not_overdrawn CHECK (balance >= 0)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- The ledger. `position` is the entry's place in its partition's history (n × 256 + place in the outbox entry): two entries of one
-- millisecond still have an order, a list can be paged by it, and the same outbox entry applied twice would be refused.
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
