-- Wait for an exclusive lock, but only for a moment: whoever queues for it stops everybody who needs it shared.
CREATE OR REPLACE FUNCTION {try_lock_v1}(lock_key bigint) RETURNS boolean
LANGUAGE plpgsql SET lock_timeout = '20ms' AS $eventstore_sa$
BEGIN
  PERFORM pg_catalog.pg_advisory_xact_lock(lock_key);
  RETURN true;
EXCEPTION WHEN lock_not_available THEN
  RETURN false;
END
$eventstore_sa$
