-- Events are never changed or deleted: the table is append-only by the database's word.
-- Except that add_tags_v1 adds tags to them, which says so by a transaction-local setting; only the owner of the table may.
CREATE OR REPLACE FUNCTION {forbid_change_v1}() RETURNS trigger
LANGUAGE plpgsql AS $eventstore_sa$
BEGIN
  IF TG_OP = 'UPDATE' AND TG_RELID = '{events_literal}'::regclass::oid
    AND coalesce(pg_catalog.current_setting('eventstore_sa.adding_tags', true), '') = 'on'
    AND (SELECT pg_catalog.pg_has_role(c.relowner, 'USAGE'::text) FROM pg_catalog.pg_class c WHERE c.oid = TG_RELID)
  THEN
    RETURN NULL;
  END IF;
  RAISE EXCEPTION USING
    ERRCODE = 'ES010',
    MESSAGE = pg_catalog.concat(
      TG_OP, ' on ', TG_TABLE_NAME, ' is forbidden: events are history and stay as they were stored. ',
      'Publish an event that corrects the earlier one. To empty the tables in tests: eventstore_sa.testing.clear().'
    );
END
$eventstore_sa$
