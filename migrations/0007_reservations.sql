-- The last settled state of each reservation. A running hold is Redis' alone: it ends within minutes, and its end is what
-- is worth keeping. `seats` keeps number, section and price as they were sold, whatever the operator changes later.
-- Ids grow with time, so rows append to the primary key. Lists go newest first by Redis' clock, not by the id's, which is
-- the clock of whichever instance made it.
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

-- Who owns a seat: confirmed reservations only. The primary key is the last line of defence of "no seat is sold twice": the
-- writer inserts plainly, so a second owner is an error that stops the partition and raises an alarm, never an overwrite.
CREATE TABLE IF NOT EXISTS reservation_seats (
    schedule_id    VARCHAR(64)  NOT NULL,
    seat_number    INT UNSIGNED NOT NULL,
    reservation_id BINARY(16)   NOT NULL,
    PRIMARY KEY (schedule_id, seat_number)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
