-- `ends_payment`: the refund of a payment's last seats, after which the payment counts no more in
-- `wallets.paid_count`. Before, a restore derived this from all refunded payments.
SET @ddl = IF((SELECT COUNT(*) FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'wallet_entries' AND column_name = 'ends_payment') = 0,
    'ALTER TABLE wallet_entries ADD COLUMN ends_payment BOOLEAN NOT NULL DEFAULT FALSE',
    'DO 0');
PREPARE ddl FROM @ddl;
EXECUTE ddl;
DEALLOCATE PREPARE ddl;

UPDATE wallet_entries e JOIN (
    SELECT r.payment_id, MAX(r.position) AS position FROM wallet_entries r
    JOIN payments p ON p.id = r.payment_id AND p.status = 'refunded'
    WHERE r.kind = 'refund' AND r.attempt IS NULL GROUP BY r.payment_id
) newest ON newest.payment_id = e.payment_id AND newest.position = e.position
SET e.ends_payment = TRUE WHERE e.kind = 'refund';

UPDATE wallets w JOIN (
    SELECT user_id, SUM(CASE WHEN kind = 'payment' THEN 1
                             WHEN attempt IS NOT NULL OR ends_payment THEN -1 ELSE 0 END) AS times
    FROM wallet_entries WHERE kind IN ('payment', 'refund') GROUP BY user_id
) e ON e.user_id = w.user_id
SET w.paid_count = e.times;
