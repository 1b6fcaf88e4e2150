-- `revocable`: whether a cancellation that makes the conditions false revokes claims of the reward.
-- A claim of such a reward has the points and conditions of that time. `revoked_at` is when a
-- cancellation revoked it. A revoked claim cannot be made again, so `once` covers it.
SET @ddl = IF((SELECT COUNT(*) FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'rewards' AND column_name = 'revocable') = 0,
    'ALTER TABLE rewards ADD COLUMN revocable BOOLEAN NOT NULL DEFAULT FALSE',
    'DO 0');
PREPARE ddl FROM @ddl;
EXECUTE ddl;

SET @ddl = IF((SELECT COUNT(*) FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'reward_claims' AND column_name = 'revoked_at') = 0,
    'ALTER TABLE reward_claims ADD COLUMN points BIGINT NULL, ADD COLUMN conditions TEXT NULL, ADD COLUMN revoked_at DATETIME(3) NULL, MODIFY COLUMN once TINYINT GENERATED ALWAYS AS (CASE WHEN status IN (''success'', ''revoked'') THEN 1 END) STORED',
    'DO 0');
PREPARE ddl FROM @ddl;
EXECUTE ddl;
DEALLOCATE PREPARE ddl;
