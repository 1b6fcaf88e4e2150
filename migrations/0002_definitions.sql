-- One counter over everything that operators set: queues, concerts, coupons, rewards. Each change locks this row and counts
-- it up, so changes stand in one order, and an instance sees that its snapshot is old by reading a single number.
CREATE TABLE IF NOT EXISTS definitions (
    id      TINYINT UNSIGNED NOT NULL PRIMARY KEY,
    version BIGINT UNSIGNED  NOT NULL,
    CONSTRAINT definitions_has_one_row CHECK (id = 1)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
