-- How the waiting page of a queue looks, as JSON: event name, logo, colours and support link. Null
-- for the default page.
SET @ddl = IF((SELECT COUNT(*) FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'queues' AND column_name = 'page') = 0,
    'ALTER TABLE queues ADD COLUMN page TEXT NULL',
    'DO 0');
PREPARE ddl FROM @ddl;
EXECUTE ddl;
DEALLOCATE PREPARE ddl;
