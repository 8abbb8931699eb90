-- The number that was drawn last for a table of events; before the first one, the number before that.
--
-- The sequence belongs to the table's identity column. It is read under the lock of its page: while nextval writes to the
-- log of the server, its page says up to 32 more than was drawn, and a plain SELECT sees that now and then.
-- NULL means that nothing was drawn since the sequence was made or restarted, or on newer servers that the caller may not
-- read it. A SELECT raises in the second case, and tells the first number in the other; it counts only if nothing was drawn
-- meanwhile.
CREATE OR REPLACE FUNCTION {last_number_v1}(events regclass) RETURNS bigint
LANGUAGE plpgsql AS $eventstore_sa$
DECLARE
  sequence constant regclass := pg_catalog.pg_get_serial_sequence(events::text, 'sequence_number')::regclass;
  last_number bigint := pg_catalog.pg_sequence_last_value(sequence);
  first_number bigint;
BEGIN
  IF sequence IS NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = 'ES004',
      MESSAGE = pg_catalog.concat('no sequence belongs to the column sequence_number of ', events);
  END IF;
  IF last_number IS NULL THEN
    EXECUTE pg_catalog.concat('SELECT s.last_value FROM ', sequence, ' s') INTO first_number;
    last_number := coalesce(pg_catalog.pg_sequence_last_value(sequence), first_number - 1);
  END IF;
  RETURN last_number;
END
$eventstore_sa$
