-- The last final state of each reservation. A running hold is only in Redis: it ends within
-- minutes, and MySQL keeps how it ended. `seats` has number, section and price as they were sold,
-- whatever the operator changes later. Ids grow with time, so rows append to the primary key. Lists
-- are sorted by `created_at`, which is Redis' clock; the time in an id is the clock of the instance
-- that made it.
CREATE TABLE IF NOT EXISTS reservations (
    id          BINARY(16)  NOT NULL PRIMARY KEY,
    user_id     BINARY(16)  NOT NULL,
    queue_id    VARCHAR(64) NOT NULL,
    concert_id  VARCHAR(64) NOT NULL,
    schedule_id VARCHAR(64) NOT NULL,
    seats       JSON        NOT NULL,
    amount      BIGINT      NOT NULL,
    status      VARCHAR(16) NOT NULL,
    held_until  DATETIME(3) NOT NULL,
    created_at  DATETIME(3) NOT NULL,
    updated_at  DATETIME(3) NOT NULL,
    KEY reservations_of_user (user_id, created_at, id),
    KEY reservations_of_concert (concert_id, created_at, id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Sold seats and their reservations. The primary key is the last defence against selling a seat
-- twice: the writer uses a plain INSERT, so a second owner is an error that goes to `dead_letters`
-- and raises an alert, never an overwrite.
CREATE TABLE IF NOT EXISTS reservation_seats (
    schedule_id    VARCHAR(64)  NOT NULL,
    seat_number    INT UNSIGNED NOT NULL,
    reservation_id BINARY(16)   NOT NULL,
    PRIMARY KEY (schedule_id, seat_number)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
