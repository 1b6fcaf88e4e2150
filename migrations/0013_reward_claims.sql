-- Every attempt to claim a reward, with the reason if it failed. `once` is 1 for a success and null
-- otherwise. Nulls are never equal, so the unique key permits many failures but one success per
-- user; a second success is an error that goes to `dead_letters` and raises an alert.
CREATE TABLE IF NOT EXISTS reward_claims (
    id         BINARY(16)  NOT NULL PRIMARY KEY,
    code       VARCHAR(64) NOT NULL,
    user_id    BINARY(16)  NOT NULL,
    status     VARCHAR(16) NOT NULL,
    reason     VARCHAR(64) NULL,
    claimed_at DATETIME(3) NOT NULL,
    once       TINYINT     GENERATED ALWAYS AS (CASE WHEN status = 'success' THEN 1 END) STORED,
    UNIQUE KEY reward_claims_once (code, user_id, once),
    KEY reward_claims_of_user (user_id, code, claimed_at, id),
    KEY reward_claims_of_reward (code, claimed_at, id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
