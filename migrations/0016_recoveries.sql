-- Every time that a partition was laid back, and under which generation. A generation that stands here was ours, so a Redis that shows it is an
-- older one of ours and not another installation's. `laid_at` is null while it is at work or was cut off; until `settled_at` what crossed
-- partitions is being settled: see src/recovery/orphans.rs.
CREATE TABLE IF NOT EXISTS recoveries (
    partition_id SMALLINT UNSIGNED NOT NULL,
    generation   BIGINT UNSIGNED   NOT NULL,
    began_at     DATETIME(3)       NOT NULL,
    laid_at      DATETIME(3)       NULL,
    settled_at   DATETIME(3)       NULL,
    PRIMARY KEY (partition_id, generation),
    KEY recoveries_unsettled (settled_at)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- What Redis kept of a fact beside the fact itself, so that it can be laid back: the key under which it was asked for with the request's digest, and which
-- attempt of which payment an entry belongs to (null attempt: the way back of a confirmed one). MySQL has no ADD COLUMN IF NOT EXISTS, hence the question.
SET @ddl = IF((SELECT COUNT(*) FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'wallet_entries' AND column_name = 'fingerprint') = 0,
    'ALTER TABLE wallet_entries ADD COLUMN payment_id BINARY(16) NULL, ADD COLUMN attempt INT UNSIGNED NULL, ADD COLUMN idempotency_key VARCHAR(128) NULL, ADD COLUMN fingerprint BINARY(16) NULL, ADD KEY wallet_entries_of_payment (payment_id)',
    'DO 0');
PREPARE ddl FROM @ddl;
EXECUTE ddl;

-- `slot` is the queue's, which the id carries; `user_slot` the user's, as in `wallets`.
SET @ddl = IF((SELECT COUNT(*) FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'payments' AND column_name = 'user_slot') = 0,
    'ALTER TABLE payments ADD COLUMN user_slot SMALLINT UNSIGNED NULL, ADD COLUMN idempotency_key VARCHAR(128) NULL, ADD COLUMN fingerprint BINARY(16) NULL, ADD COLUMN cancel_key VARCHAR(128) NULL, ADD COLUMN cancel_fingerprint BINARY(16) NULL, ADD COLUMN slot SMALLINT UNSIGNED GENERATED ALWAYS AS (CONV(HEX(SUBSTRING(id, 7, 2)), 16, 10) & 4095) VIRTUAL, ADD KEY payments_of_slot (slot, settled_at), ADD KEY payments_of_user_slot (user_slot, settled_at)',
    'DO 0');
PREPARE ddl FROM @ddl;
EXECUTE ddl;

-- The place in line of the slot under which it was made: with that the token is used up.
SET @ddl = IF((SELECT COUNT(*) FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'reservations' AND column_name = 'score') = 0,
    'ALTER TABLE reservations ADD COLUMN score BIGINT NULL',
    'DO 0');
PREPARE ddl FROM @ddl;
EXECUTE ddl;

-- The user's slot, which a claim's id carries.
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
