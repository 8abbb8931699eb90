-- Wait for an exclusive lock, but only so long: whoever queues for it stops everybody who needs it shared.
CREATE OR REPLACE FUNCTION {try_lock_v1}(lock_key bigint, patience_ms int) RETURNS boolean
LANGUAGE plpgsql SET lock_timeout = '20ms' AS $eventstore_sa$
BEGIN
  -- The attribute restores the caller's setting.
  PERFORM pg_catalog.set_config('lock_timeout', pg_catalog.concat(patience_ms, 'ms'), true);
  PERFORM pg_catalog.pg_advisory_xact_lock(lock_key);
  RETURN true;
EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
  RETURN false;
END
$eventstore_sa$
