-- The hash slot of the queue that a reservation was made in, which is part of its id. A restore
-- selects the reservations of a partition by it: the concert may have moved to a queue of another
-- partition since.
SET @ddl = IF((SELECT COUNT(*) FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'reservations' AND column_name = 'slot') = 0,
    'ALTER TABLE reservations ADD COLUMN slot SMALLINT UNSIGNED GENERATED ALWAYS AS (CONV(HEX(SUBSTRING(id, 7, 2)), 16, 10) & 4095) VIRTUAL, ADD KEY reservations_of_slot (slot, updated_at)',
    'DO 0');
PREPARE ddl FROM @ddl;
EXECUTE ddl;
DEALLOCATE PREPARE ddl;
