-- One version for everything that operators define: queues, concerts, coupons, rewards. Each change
-- locks this row and increments it. So changes have a total order, and an instance detects that its
-- snapshot is stale by reading one number.
CREATE TABLE IF NOT EXISTS definitions (
    id      TINYINT UNSIGNED NOT NULL PRIMARY KEY,
    version BIGINT UNSIGNED  NOT NULL,
    CONSTRAINT definitions_has_one_row CHECK (id = 1)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
