-- Refused claims of a user have one row per reward and reason: `attempts` counts them, and
-- `claimed_at` is the time of the last one. `reason` is null for granted claims, and nulls are
-- never equal, so the unique key covers refusals only.
SET @ddl = IF((SELECT COUNT(*) FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'reward_claims' AND column_name = 'attempts') = 0,
    'ALTER TABLE reward_claims ADD COLUMN attempts INT UNSIGNED NOT NULL DEFAULT 1',
    'DO 0');
PREPARE ddl FROM @ddl;
EXECUTE ddl;

UPDATE reward_claims c JOIN (
    SELECT MIN(id) AS first_id, COUNT(*) AS times, MAX(claimed_at) AS latest FROM reward_claims
    WHERE reason IS NOT NULL GROUP BY user_id, code, reason HAVING COUNT(*) > 1
) d ON d.first_id = c.id
SET c.attempts = d.times, c.claimed_at = d.latest;

DELETE c FROM reward_claims c JOIN reward_claims k
    ON k.user_id = c.user_id AND k.code = c.code AND k.reason = c.reason AND k.id < c.id;

SET @ddl = IF((SELECT COUNT(*) FROM information_schema.statistics
    WHERE table_schema = DATABASE() AND table_name = 'reward_claims' AND index_name = 'reward_claims_refused') = 0,
    'ALTER TABLE reward_claims ADD UNIQUE KEY reward_claims_refused (user_id, code, reason)',
    'DO 0');
PREPARE ddl FROM @ddl;
EXECUTE ddl;
DEALLOCATE PREPARE ddl;
