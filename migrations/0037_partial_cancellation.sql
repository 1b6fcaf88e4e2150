-- Cancellations of some or all seats. `reservations.cancellations` is a JSON list in their order,
-- [{key, fingerprint, seats, refund, at}], where `seats` are numbers of `reservations.seats`.
-- `payments.refunded` is the sum of the refunds. MySQL has no ADD COLUMN IF NOT EXISTS, so each
-- change asks information_schema first.
SET @ddl = IF((SELECT COUNT(*) FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'reservations' AND column_name = 'cancellations') = 0,
    'ALTER TABLE reservations ADD COLUMN cancellations JSON NULL',
    'DO 0');
PREPARE ddl FROM @ddl;
EXECUTE ddl;
SET @ddl = IF((SELECT COUNT(*) FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'payments' AND column_name = 'refunded') = 0,
    'ALTER TABLE payments ADD COLUMN refunded BIGINT NOT NULL DEFAULT 0',
    'DO 0');
PREPARE ddl FROM @ddl;
EXECUTE ddl;

-- The numbers of the seats that a refund is for, separated by commas: a cancellation whose record
-- was lost after its refund is resumed with them.
SET @ddl = IF((SELECT COUNT(*) FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'wallet_entries' AND column_name = 'cancelled_seats') = 0,
    'ALTER TABLE wallet_entries ADD COLUMN cancelled_seats VARCHAR(1024) NULL',
    'DO 0');
PREPARE ddl FROM @ddl;
EXECUTE ddl;
DEALLOCATE PREPARE ddl;
