-- A concert and its schedules. Both tables are small, and every instance reads them whole into its
-- snapshot, so no query searches them. Redis holds nothing of an archived concert: it cannot be
-- booked, changed or cancelled, and its sold seats are read from MySQL.
CREATE TABLE IF NOT EXISTS concerts (
    id                 VARCHAR(64)     NOT NULL PRIMARY KEY,
    version            BIGINT UNSIGNED NOT NULL,
    title              VARCHAR(255)    NOT NULL,
    queue_id           VARCHAR(64)     NOT NULL,
    hold_seconds       INT UNSIGNED    NOT NULL,
    max_seats_per_user INT UNSIGNED    NOT NULL,
    cancel_until       DATETIME(3)     NULL,
    archived_at        DATETIME(3)     NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- `sections` is the list that the operator sent, [{name, from, to, price}]. It is always read and
-- replaced as a whole. A schedule's id is unique across concerts, because routes name only the
-- schedule.
CREATE TABLE IF NOT EXISTS schedules (
    id                VARCHAR(64) NOT NULL PRIMARY KEY,
    concert_id        VARCHAR(64) NOT NULL,
    starts_at         DATETIME(3) NOT NULL,
    booking_opens_at  DATETIME(3) NULL,
    booking_closes_at DATETIME(3) NULL,
    sections          JSON        NOT NULL,
    KEY schedules_of_concert (concert_id, starts_at)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
