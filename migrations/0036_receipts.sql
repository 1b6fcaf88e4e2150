-- What a receipt shows, as it was when the seats were held and paid. MySQL has no ADD COLUMN IF NOT
-- EXISTS, so each change asks information_schema first.
SET @ddl = IF((SELECT COUNT(*) FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'reservations' AND column_name = 'concert_title') = 0,
    'ALTER TABLE reservations ADD COLUMN concert_title VARCHAR(255) NULL, ADD COLUMN starts_at DATETIME(3) NULL, ADD COLUMN payment_id BINARY(16) NULL, ADD COLUMN paid BIGINT NULL, ADD COLUMN discount BIGINT NULL',
    'DO 0');
PREPARE ddl FROM @ddl;
EXECUTE ddl;

-- The list of a user's payments.
SET @ddl = IF((SELECT COUNT(*) FROM information_schema.statistics
    WHERE table_schema = DATABASE() AND table_name = 'payments' AND index_name = 'payments_of_user') = 0,
    'ALTER TABLE payments ADD KEY payments_of_user (user_id, created_at, id)',
    'DO 0');
PREPARE ddl FROM @ddl;
EXECUTE ddl;

-- What a ledger entry belongs to, besides its payment.
SET @ddl = IF((SELECT COUNT(*) FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'wallet_entries' AND column_name = 'reservation_id') = 0,
    'ALTER TABLE wallet_entries ADD COLUMN reservation_id BINARY(16) NULL, ADD COLUMN claim_id BINARY(16) NULL',
    'DO 0');
PREPARE ddl FROM @ddl;
EXECUTE ddl;
DEALLOCATE PREPARE ddl;
