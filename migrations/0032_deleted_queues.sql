-- A deleted queue keeps its row, because promotions and draws belong to it. `arrivals` is how many
-- scores it had given to arrivals when it was deleted: a later queue of this name continues with
-- the next score, so that an old token has no place in it. MySQL has no ADD COLUMN IF NOT EXISTS,
-- so each change asks information_schema first.
SET @ddl = IF((SELECT COUNT(*) FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'queues' AND column_name = 'deleted_at') = 0,
    'ALTER TABLE queues ADD COLUMN deleted_at DATETIME(3) NULL, ADD COLUMN arrivals BIGINT UNSIGNED NOT NULL DEFAULT 0',
    'DO 0');
PREPARE ddl FROM @ddl;
EXECUTE ddl;
DEALLOCATE PREPARE ddl;

-- The names in the path, joined by a slash: a queue and a user.
ALTER TABLE admin_actions MODIFY COLUMN object VARCHAR(255) NULL;
