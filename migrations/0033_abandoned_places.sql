-- Seconds without a sign of life after which a waiting user loses the place. Null: never. MySQL has
-- no ADD COLUMN IF NOT EXISTS, so the change asks information_schema first.
SET @ddl = IF((SELECT COUNT(*) FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'queues'
    AND column_name = 'abandon_after_seconds') = 0,
    'ALTER TABLE queues ADD COLUMN abandon_after_seconds INT UNSIGNED NULL',
    'DO 0');
PREPARE ddl FROM @ddl;
EXECUTE ddl;
DEALLOCATE PREPARE ddl;
