-- Who called, and the object before and after the call, as JSON.
SET @ddl = IF((SELECT COUNT(*) FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'admin_actions' AND column_name = 'actor') = 0,
    'ALTER TABLE admin_actions ADD COLUMN actor VARCHAR(64) NULL, ADD COLUMN state_before MEDIUMTEXT NULL, ADD COLUMN state_after MEDIUMTEXT NULL',
    'DO 0');
PREPARE ddl FROM @ddl;
EXECUTE ddl;
DEALLOCATE PREPARE ddl;

INSERT IGNORE INTO compatible_migrations (version) VALUES (65);
