-- The last final state of each payment. A refused payment can be tried again under the same id with
-- a higher `attempt`, and a confirmed one can be refunded later; the row is then replaced. The
-- coupon columns keep their values after the coupon was given back.
CREATE TABLE IF NOT EXISTS payments (
    id              BINARY(16)   NOT NULL PRIMARY KEY,
    reservation_id  BINARY(16)   NOT NULL,
    user_id         BINARY(16)   NOT NULL,
    queue_id        VARCHAR(64)  NOT NULL,
    amount          BIGINT       NOT NULL,
    discount        BIGINT       NOT NULL,
    status          VARCHAR(16)  NOT NULL,
    reason          VARCHAR(64)  NULL,
    attempt         INT UNSIGNED NOT NULL,
    balance_after   BIGINT       NULL,
    coupon_id       VARCHAR(64)  NULL,
    coupon_issue_id BINARY(16)   NULL,
    created_at      DATETIME(3)  NOT NULL,
    settled_at      DATETIME(3)  NOT NULL,
    KEY payments_of_reservation (reservation_id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
