-- Payments by external providers. MySQL has no ADD COLUMN IF NOT EXISTS, so each change asks
-- information_schema first.

-- For how many seconds an external payment waits for its provider.
SET @ddl = IF((SELECT COUNT(*) FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'concerts' AND column_name = 'payment_seconds') = 0,
    'ALTER TABLE concerts ADD COLUMN payment_seconds INT UNSIGNED NOT NULL DEFAULT 600',
    'DO 0');
PREPARE ddl FROM @ddl;
EXECUTE ddl;

-- `external_amount` is what the provider took, null for a payment by wallet. `wallet_amount` is what
-- the wallet paid, and `wallet_refunded` what it got back: it gets its part back first.
-- `reference_key` is a hash of provider and reference; its slot determines the partition of the
-- claim. `provider_refunds` is a JSON list [{reference, amount, at}]. `refund_due_since` is set
-- while the provider has to pay money back.
SET @ddl = IF((SELECT COUNT(*) FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'payments' AND column_name = 'external_amount') = 0,
    'ALTER TABLE payments ADD COLUMN external_amount BIGINT NULL, ADD COLUMN provider VARCHAR(64) NULL, ADD COLUMN reference VARCHAR(255) NULL, ADD COLUMN reference_key BINARY(16) NULL, ADD COLUMN provider_refunds JSON NULL, ADD COLUMN refund_due_since DATETIME(3) NULL',
    'DO 0');
PREPARE ddl FROM @ddl;
EXECUTE ddl;

SET @ddl = IF((SELECT COUNT(*) FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'payments' AND column_name = 'wallet_amount') = 0,
    'ALTER TABLE payments ADD COLUMN wallet_amount BIGINT GENERATED ALWAYS AS (amount - discount - COALESCE(external_amount, 0)) VIRTUAL, ADD COLUMN wallet_refunded BIGINT GENERATED ALWAYS AS (LEAST(refunded, amount - discount - COALESCE(external_amount, 0))) VIRTUAL, ADD COLUMN reference_slot SMALLINT UNSIGNED GENERATED ALWAYS AS (CONV(HEX(SUBSTRING(reference_key, 7, 2)), 16, 10) & 4095) VIRTUAL, ADD KEY payments_of_reference_slot (reference_slot), ADD KEY payments_of_reference (reference_key), ADD KEY payments_with_refund_due (refund_due_since, id)',
    'DO 0');
PREPARE ddl FROM @ddl;
EXECUTE ddl;

-- `is_undebited` is 1 for a confirmed payment without a ledger entry: a discount or a provider pays
-- all of it. It replaces `is_free`.
SET @ddl = IF((SELECT COUNT(*) FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'payments' AND column_name = 'is_undebited') = 0,
    'ALTER TABLE payments ADD COLUMN is_undebited TINYINT GENERATED ALWAYS AS (CASE WHEN status = ''confirmed'' AND amount = discount + COALESCE(external_amount, 0) THEN 1 END) VIRTUAL, ADD KEY payments_that_are_undebited (is_undebited, user_slot, user_id)',
    'DO 0');
PREPARE ddl FROM @ddl;
EXECUTE ddl;
SET @ddl = IF((SELECT COUNT(*) FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'payments' AND column_name = 'is_free') = 1,
    'ALTER TABLE payments DROP KEY payments_that_are_free, DROP COLUMN is_free',
    'DO 0');
PREPARE ddl FROM @ddl;
EXECUTE ddl;
DEALLOCATE PREPARE ddl;

-- The external payments that wait for their provider, with what a restore needs: the records of
-- payment and reservation as they were in Redis. A row is deleted when its payment ends.
CREATE TABLE IF NOT EXISTS pending_payments (
    id                 BINARY(16)        NOT NULL PRIMARY KEY,
    reservation_id     BINARY(16)        NOT NULL,
    user_id            BINARY(16)        NOT NULL,
    user_slot          SMALLINT UNSIGNED NOT NULL,
    queue_id           VARCHAR(64)       NOT NULL,
    schedule_id        VARCHAR(64)       NOT NULL,
    attempt            INT UNSIGNED      NOT NULL,
    discount           BIGINT            NOT NULL,
    wallet_amount      BIGINT            NOT NULL,
    coupon_id          VARCHAR(64)       NULL,
    coupon_issue_id    BINARY(16)        NULL,
    idempotency_key    VARCHAR(128)      NULL,
    fingerprint        BINARY(16)        NULL,
    created_at         DATETIME(3)       NOT NULL,
    due_at             DATETIME(3)       NOT NULL,
    payment_record     BLOB              NOT NULL,
    reservation_record MEDIUMBLOB        NOT NULL,
    slot SMALLINT UNSIGNED GENERATED ALWAYS AS (CONV(HEX(SUBSTRING(id, 7, 2)), 16, 10) & 4095) VIRTUAL,
    KEY pending_payments_of_slot (slot),
    KEY pending_payments_of_user (user_slot, user_id),
    KEY pending_payments_of_coupon (coupon_id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Not compatible: the previous release reads `is_free`, and refuses the event of a waiting payment.
