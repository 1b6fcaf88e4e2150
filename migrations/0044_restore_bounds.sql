-- What a restore reads must depend on what can still be repeated, not on the whole history.

-- The hash slot of the user, which is part of the id. With it a restore reads the ledger entries of
-- the last days in one partition, instead of every entry of its users. MySQL has no ADD COLUMN IF
-- NOT EXISTS, so each change asks information_schema first.
SET @ddl = IF((SELECT COUNT(*) FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'wallet_entries' AND column_name = 'slot') = 0,
    'ALTER TABLE wallet_entries ADD COLUMN slot SMALLINT UNSIGNED GENERATED ALWAYS AS (CONV(HEX(SUBSTRING(id, 7, 2)), 16, 10) & 4095) VIRTUAL, ADD KEY wallet_entries_of_slot (slot, created_at)',
    'DO 0');
PREPARE ddl FROM @ddl;
EXECUTE ddl;

-- What the user has paid: the sum and the number of the debits that were not refunded. The writer
-- adds each ledger entry in the transaction that inserts it.
SET @ddl = IF((SELECT COUNT(*) FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'wallets' AND column_name = 'paid_total') = 0,
    'ALTER TABLE wallets ADD COLUMN paid_total BIGINT NOT NULL DEFAULT 0, ADD COLUMN paid_count BIGINT NOT NULL DEFAULT 0',
    'DO 0');
PREPARE ddl FROM @ddl;
EXECUTE ddl;

UPDATE wallets w JOIN (
    SELECT user_id, SUM(IF(kind = 'payment', amount, -amount)) AS total,
           SUM(IF(kind = 'payment', 1, -1)) AS times
    FROM wallet_entries WHERE kind IN ('payment', 'refund') GROUP BY user_id
) e ON e.user_id = w.user_id
SET w.paid_total = e.total, w.paid_count = e.times;

-- `is_free` is 1 for a confirmed payment with a discount of 100 %, which has no ledger entry, and
-- null otherwise.
SET @ddl = IF((SELECT COUNT(*) FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'payments' AND column_name = 'is_free') = 0,
    'ALTER TABLE payments ADD COLUMN is_free TINYINT GENERATED ALWAYS AS (CASE WHEN status = ''confirmed'' AND amount = discount THEN 1 END) VIRTUAL, ADD KEY payments_that_are_free (is_free, user_slot, user_id)',
    'DO 0');
PREPARE ddl FROM @ddl;
EXECUTE ddl;

-- Covers the two sums that the restore of a queue reads.
SET @ddl = IF((SELECT COUNT(*) FROM information_schema.statistics
    WHERE table_schema = DATABASE() AND table_name = 'promotions' AND index_name = 'promotions_for_restore') = 0,
    'ALTER TABLE promotions ADD KEY promotions_for_restore (queue_id, promoted_at, to_score, count)',
    'DO 0');
PREPARE ddl FROM @ddl;
EXECUTE ddl;

-- The reconciliation after a restore reads what ended since the loss.
SET @ddl = IF((SELECT COUNT(*) FROM information_schema.statistics
    WHERE table_schema = DATABASE() AND table_name = 'payments' AND index_name = 'payments_by_end') = 0,
    'ALTER TABLE payments ADD KEY payments_by_end (settled_at)',
    'DO 0');
PREPARE ddl FROM @ddl;
EXECUTE ddl;

SET @ddl = IF((SELECT COUNT(*) FROM information_schema.statistics
    WHERE table_schema = DATABASE() AND table_name = 'coupon_issues' AND index_name = 'coupon_issues_by_use') = 0,
    'ALTER TABLE coupon_issues ADD KEY coupon_issues_by_use (used_at)',
    'DO 0');
PREPARE ddl FROM @ddl;
EXECUTE ddl;
DEALLOCATE PREPARE ddl;
