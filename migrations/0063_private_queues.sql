-- Whether the line document of a queue is hidden. An older release does not have the document.
SET @ddl = IF((SELECT COUNT(*) FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'queues' AND column_name = 'private') = 0,
    'ALTER TABLE queues ADD COLUMN private BOOLEAN NOT NULL DEFAULT FALSE',
    'DO 0');
PREPARE ddl FROM @ddl;
EXECUTE ddl;
DEALLOCATE PREPARE ddl;
INSERT IGNORE INTO compatible_migrations (version) VALUES (63);
