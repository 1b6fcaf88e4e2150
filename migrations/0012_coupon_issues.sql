-- Coupon issues. The key `coupon_issues_once` is the last defence of "one for each user": the
-- writer uses a plain INSERT, so a second issue is an error that goes to `dead_letters` and raises
-- an alert. `payment_id` is the payment that redeemed the issue, null after the payment gave it
-- back.
CREATE TABLE IF NOT EXISTS coupon_issues (
    id         BINARY(16)  NOT NULL PRIMARY KEY,
    coupon_id  VARCHAR(64) NOT NULL,
    user_id    BINARY(16)  NOT NULL,
    issued_at  DATETIME(3) NOT NULL,
    used_at    DATETIME(3) NULL,
    payment_id BINARY(16)  NULL,
    UNIQUE KEY coupon_issues_once (coupon_id, user_id),
    KEY coupon_issues_of_coupon (coupon_id, issued_at, id),
    KEY coupon_issues_of_user (user_id, issued_at, id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
