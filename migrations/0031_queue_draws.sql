-- The draws of a queue. A draw opens with the first settings that make it a lottery before its
-- opening, and again with every change after which users must not overtake those who wait. `seed`
-- never changes. `opens_at` is the planned opening (null: the operator opens the queue), `drawn_at`
-- the opening that took place, `entrants` how many users took part, null until it is known.
CREATE TABLE IF NOT EXISTS queue_draws (
    queue_id VARCHAR(64)     NOT NULL,
    draw     INT UNSIGNED    NOT NULL,
    seed     CHAR(32)        NOT NULL,
    opens_at DATETIME(3)     NULL,
    drawn_at DATETIME(3)     NULL,
    entrants BIGINT UNSIGNED NULL,
    PRIMARY KEY (queue_id, draw)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- `draw` is the newest draw of the queue, 0 before the first. `message` is JSON: a string, or an
-- object by language. MySQL has no ADD COLUMN IF NOT EXISTS, so each change asks
-- information_schema first.
SET @ddl = IF((SELECT COUNT(*) FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'queues' AND column_name = 'draw') = 0,
    'ALTER TABLE queues ADD COLUMN draw INT UNSIGNED NOT NULL DEFAULT 0, ADD COLUMN message TEXT NULL, ADD COLUMN visit VARCHAR(16) NOT NULL DEFAULT ''fixed'', ADD COLUMN visit_limit_seconds INT UNSIGNED NULL',
    'DO 0');
PREPARE ddl FROM @ddl;
EXECUTE ddl;

-- The limit that was in force: at most `rate_limit` users in `rate_interval_ms`.
SET @ddl = IF((SELECT COUNT(*) FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'promotions' AND column_name = 'rate_limit') = 0,
    'ALTER TABLE promotions ADD COLUMN rate_limit INT UNSIGNED NULL, ADD COLUMN rate_interval_ms INT UNSIGNED NULL',
    'DO 0');
PREPARE ddl FROM @ddl;
EXECUTE ddl;
DEALLOCATE PREPARE ddl;
