-- How far the log can be read without missing an event: the lower of the sequence's last value (read first) and the lowest
-- fence that another transaction holds. Events up to the watermark must be read by a later statement than this call.
CREATE OR REPLACE FUNCTION {watermark_v1}(OUT last_number bigint, OUT watermark bigint)
LANGUAGE plpgsql VOLATILE AS $eventstore_sa$
DECLARE
  low_bits_range constant bigint := 4294967296;
  -- A fence may have been raised after last_number was read, a little above it; all others are below.
  ahead constant bigint := 16777216;
BEGIN
  IF pg_catalog.pg_is_in_recovery() THEN
    RAISE EXCEPTION USING
      ERRCODE = 'ES002',
      MESSAGE = 'this server is a standby: it has no locks of writers, so it cannot tell how far the log is complete';
  END IF;
  IF pg_catalog.current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
    RAISE EXCEPTION USING
      ERRCODE = 'ES003',
      MESSAGE = 'a complete read of the log needs READ COMMITTED: an older snapshot would miss events';
  END IF;
  last_number := {last_number_v1}('{events_literal}'::regclass);
  SELECT last_number - coalesce(pg_catalog.max(fence.distance), 0) INTO watermark
  FROM (
    SELECT pg_catalog.mod(pg_catalog.mod(last_number - l.objid::bigint, low_bits_range) + low_bits_range, low_bits_range) AS distance
    FROM pg_catalog.pg_locks l
    WHERE l.locktype = 'advisory'
      AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
      AND l.classid = '{events_literal}'::regclass::oid
      AND l.objsubid = 2
      -- A prepared transaction has no pid, and its fence counts.
      AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()
  ) fence
  WHERE fence.distance < low_bits_range - ahead;
END
$eventstore_sa$
