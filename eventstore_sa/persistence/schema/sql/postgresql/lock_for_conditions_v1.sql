-- Take the locks of a publish before its conditions are evaluated by statements of the application's own.
CREATE OR REPLACE FUNCTION {lock_for_conditions_v1}(document jsonb) RETURNS void
LANGUAGE plpgsql AS $eventstore_sa$
BEGIN
  IF pg_catalog.current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
    RAISE EXCEPTION USING
      ERRCODE = 'ES003',
      MESSAGE = 'a condition of the application needs READ COMMITTED: an older snapshot may not see what it looks at';
  END IF;
  PERFORM {lock_v1}(document);
END
$eventstore_sa$
