-- Take an exclusive lock that others hold shared, by growing tries with growing pauses until the deadline.
-- The deadline is lock_timeout where one is set, else ten seconds. Tries of one length would never get a lock that is held by
-- transactions of others that overlap, each longer than a try.
CREATE OR REPLACE FUNCTION {lock_widely_v1}(lock_key bigint, locked text) RETURNS void
LANGUAGE plpgsql AS $eventstore_sa$
DECLARE
  patience_ms constant int := coalesce(
    nullif((SELECT s.setting::int FROM pg_catalog.pg_settings s WHERE s.name = 'lock_timeout'), 0), 10000
  );
  deadline constant timestamptz := pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => patience_ms::float8 / 1000::float8);
  slice_ms float8 := 20;
  holder text;
BEGIN
  WHILE NOT {try_lock_v1}(
    lock_key, least(slice_ms, greatest(1::float8, pg_catalog.date_part('epoch'::text, deadline - pg_catalog.clock_timestamp()) * 1000::float8))::int
  ) LOOP
    IF pg_catalog.clock_timestamp() >= deadline THEN
      SELECT pg_catalog.string_agg(
        pg_catalog.concat('process ', coalesce(l.pid::text, 'of a prepared transaction'), ' (', a.application_name, ')'), ', '
      )
      INTO holder
      FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
      WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
        AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
        AND (l.classid::bigint << 32 | l.objid::bigint) = lock_key
        AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid();
      RAISE EXCEPTION USING
        ERRCODE = 'lock_not_available',
        MESSAGE = pg_catalog.concat(
          'could not acquire the exclusive lock on ', locked, ' within ', patience_ms, ' ms; it is held by ',
          coalesce(holder, 'a transaction that has just ended')
        );
    END IF;
    PERFORM pg_catalog.pg_sleep(slice_ms / 1000::float8 * (0.5::float8 + pg_catalog.random()));
    slice_ms := least(slice_ms * 1.5::float8, 640::float8);
  END LOOP;
END
$eventstore_sa$
