-- Not compatible: the release before would sell a schedule that is called off.

-- Work that goes on in the background until it is done, whatever instance dies. The instance with
-- the lease works; a lease that is not renewed ends. `object` is what the job is about.
CREATE TABLE IF NOT EXISTS jobs (
    id          BINARY(16)   NOT NULL PRIMARY KEY,
    kind        VARCHAR(32)  NOT NULL,
    object      VARCHAR(64)  NOT NULL,
    reason      VARCHAR(500) NOT NULL,
    status      VARCHAR(16)  NOT NULL,
    done        INT UNSIGNED NOT NULL,
    total       INT UNSIGNED NOT NULL,
    failures    INT UNSIGNED NOT NULL,
    started_at  DATETIME(3)  NOT NULL,
    ended_at    DATETIME(3)  NULL,
    lease_owner BINARY(16)   NULL,
    lease_until DATETIME(3)  NULL,
    UNIQUE KEY jobs_of_object (kind, object),
    KEY jobs_by_start (started_at, id),
    KEY jobs_by_status (status, lease_until)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Schedules that are called off. They stay so when their concert is defined anew.
CREATE TABLE IF NOT EXISTS cancelled_schedules (
    schedule_id  VARCHAR(64)  NOT NULL PRIMARY KEY,
    reason       VARCHAR(500) NOT NULL,
    cancelled_at DATETIME(3)  NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
