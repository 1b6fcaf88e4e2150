-- Settings of a coupon. Redis counts the issues. `total_quantity` is null for an unlimited coupon.
CREATE TABLE IF NOT EXISTS coupons (
    id                   VARCHAR(64)     NOT NULL PRIMARY KEY,
    version              BIGINT UNSIGNED NOT NULL,
    title                VARCHAR(255)    NOT NULL,
    total_quantity       BIGINT UNSIGNED NULL,
    discount_amount      BIGINT          NOT NULL,
    min_available_amount BIGINT          NOT NULL,
    issue_starts_at      DATETIME(3)     NOT NULL,
    issue_ends_at        DATETIME(3)     NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
