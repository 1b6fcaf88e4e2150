-- The caller's reference of a charge or a use. MySQL has no ADD COLUMN IF NOT EXISTS, so the change
-- asks information_schema first.
SET @ddl = IF((SELECT COUNT(*) FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'wallet_entries' AND column_name = 'reference') = 0,
    'ALTER TABLE wallet_entries ADD COLUMN reference VARCHAR(64) NULL',
    'DO 0');
PREPARE ddl FROM @ddl;
EXECUTE ddl;
DEALLOCATE PREPARE ddl;
