-- Facts about a user that operators set, as one JSON document: the conditions of rewards are
-- evaluated in Redis, never by SQL. `slot` is the hash slot, as in `wallets`.
CREATE TABLE IF NOT EXISTS user_facts (
    user_id    BINARY(16)        NOT NULL PRIMARY KEY,
    slot       SMALLINT UNSIGNED NOT NULL,
    facts      JSON              NOT NULL,
    updated_at DATETIME(3)       NOT NULL,
    KEY user_facts_of_slot (slot)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
