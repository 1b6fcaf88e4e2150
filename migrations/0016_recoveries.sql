-- Every restore of a partition, with the epoch it assigned (`generation`). A Redis with an epoch
-- that is in this table is an older state of this installation and not of another one. `laid_at` is
-- when the restore finished, null if it is running or was interrupted. `settled_at` is when
-- operations that cross partitions were reconciled (src/recovery/reconcile.rs).
CREATE TABLE IF NOT EXISTS recoveries (
    partition_id SMALLINT UNSIGNED NOT NULL,
    generation   BIGINT UNSIGNED   NOT NULL,
    began_at     DATETIME(3)       NOT NULL,
    laid_at      DATETIME(3)       NULL,
    settled_at   DATETIME(3)       NULL,
    PRIMARY KEY (partition_id, generation),
    KEY recoveries_unsettled (settled_at)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Columns that only a restore needs: the idempotency key with the digest of its request, and the
-- payment and attempt that a ledger entry belongs to (attempt null: the refund of a confirmed
-- payment). MySQL has no ADD COLUMN IF NOT EXISTS, so each change asks information_schema first.
SET @ddl = IF((SELECT COUNT(*) FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'wallet_entries' AND column_name = 'fingerprint') = 0,
    'ALTER TABLE wallet_entries ADD COLUMN payment_id BINARY(16) NULL, ADD COLUMN attempt INT UNSIGNED NULL, ADD COLUMN idempotency_key VARCHAR(128) NULL, ADD COLUMN fingerprint BINARY(16) NULL, ADD KEY wallet_entries_of_payment (payment_id)',
    'DO 0');
PREPARE ddl FROM @ddl;
EXECUTE ddl;

-- `slot` is the hash slot of the queue, which is part of the id. `user_slot` is that of the user.
SET @ddl = IF((SELECT COUNT(*) FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'payments' AND column_name = 'user_slot') = 0,
    'ALTER TABLE payments ADD COLUMN user_slot SMALLINT UNSIGNED NULL, ADD COLUMN idempotency_key VARCHAR(128) NULL, ADD COLUMN fingerprint BINARY(16) NULL, ADD COLUMN cancel_key VARCHAR(128) NULL, ADD COLUMN cancel_fingerprint BINARY(16) NULL, ADD COLUMN slot SMALLINT UNSIGNED GENERATED ALWAYS AS (CONV(HEX(SUBSTRING(id, 7, 2)), 16, 10) & 4095) VIRTUAL, ADD KEY payments_of_slot (slot, settled_at), ADD KEY payments_of_user_slot (user_slot, settled_at)',
    'DO 0');
PREPARE ddl FROM @ddl;
EXECUTE ddl;

-- The score of the active slot that made the reservation: it identifies the token that is used up.
SET @ddl = IF((SELECT COUNT(*) FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'reservations' AND column_name = 'score') = 0,
    'ALTER TABLE reservations ADD COLUMN score BIGINT NULL',
    'DO 0');
PREPARE ddl FROM @ddl;
EXECUTE ddl;

-- The hash slot of the user, which is part of the claim's id.
SET @ddl = IF((SELECT COUNT(*) FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'reward_claims' AND column_name = 'slot') = 0,
    'ALTER TABLE reward_claims ADD COLUMN slot SMALLINT UNSIGNED GENERATED ALWAYS AS (CONV(HEX(SUBSTRING(id, 7, 2)), 16, 10) & 4095) VIRTUAL, ADD KEY reward_claims_of_slot (slot, once)',
    'DO 0');
PREPARE ddl FROM @ddl;
EXECUTE ddl;

SET @ddl = IF((SELECT COUNT(*) FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'queues' AND column_name = 'restore_seconds') = 0,
    'ALTER TABLE queues ADD COLUMN restore_seconds INT UNSIGNED NOT NULL DEFAULT 30',
    'DO 0');
PREPARE ddl FROM @ddl;
EXECUTE ddl;
DEALLOCATE PREPARE ddl;
