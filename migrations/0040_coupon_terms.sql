-- Terms of coupons and their copies in the issues. `discount_amount` counts for the kind `amount`
-- (in `coupons` it is 0 otherwise), `discount_percent` and `discount_limit` for the kind `percent`.
-- An issue that was made before this change gets the terms that its coupon has now.
SET @ddl = IF((SELECT COUNT(*) FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'coupons' AND column_name = 'discount_kind') = 0,
    'ALTER TABLE coupons ADD COLUMN discount_kind VARCHAR(16) NOT NULL DEFAULT ''amount'', ADD COLUMN discount_percent INT UNSIGNED NULL, ADD COLUMN discount_limit BIGINT NULL, ADD COLUMN valid_seconds INT UNSIGNED NULL, ADD COLUMN valid_until DATETIME(3) NULL',
    'DO 0');
PREPARE ddl FROM @ddl;
EXECUTE ddl;

SET @ddl = IF((SELECT COUNT(*) FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'coupon_issues' AND column_name = 'discount_kind') = 0,
    'ALTER TABLE coupon_issues ADD COLUMN discount_kind VARCHAR(16) NOT NULL DEFAULT ''amount'', ADD COLUMN discount_amount BIGINT NULL, ADD COLUMN discount_percent INT UNSIGNED NULL, ADD COLUMN discount_limit BIGINT NULL, ADD COLUMN min_available_amount BIGINT NOT NULL DEFAULT 0, ADD COLUMN valid_until DATETIME(3) NULL',
    'DO 0');
PREPARE ddl FROM @ddl;
EXECUTE ddl;
DEALLOCATE PREPARE ddl;

UPDATE coupon_issues i JOIN coupons c ON c.id = i.coupon_id
SET i.discount_amount = c.discount_amount, i.min_available_amount = c.min_available_amount
WHERE i.discount_kind = 'amount' AND i.discount_amount IS NULL;
