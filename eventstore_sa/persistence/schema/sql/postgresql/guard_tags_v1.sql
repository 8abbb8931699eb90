-- Refuse events with tags, and entries of the index of tags, that are not inserted by a publish: a publish locks the tags, and
-- indexes them. While it inserts, a transaction-local setting says so, which reverts with the savepoint.
-- The owner of the table can restore events together with their entries: SET eventstore_sa.restoring = 'on'.
CREATE OR REPLACE FUNCTION {guard_tags_v1}() RETURNS trigger
LANGUAGE plpgsql AS $eventstore_sa$
DECLARE
  publishing constant text := pg_catalog.concat('eventstore_sa.tags_', '{events_literal}'::regclass::oid::bigint);
BEGIN
  IF coalesce(pg_catalog.current_setting(publishing, true), '') = '' AND NOT (
    coalesce(pg_catalog.current_setting('eventstore_sa.restoring', true), '') = 'on'
    AND (SELECT pg_catalog.pg_has_role(c.relowner, 'USAGE'::text) FROM pg_catalog.pg_class c WHERE c.oid = TG_RELID)
  ) THEN
    RAISE EXCEPTION USING
      ERRCODE = 'ES011',
      MESSAGE = pg_catalog.concat(
        'INSERT of tags into ', TG_TABLE_NAME, ' is forbidden: nothing locks or indexes them. Publish the events. To restore ',
        'events together with their index, as the owner of the tables: SET eventstore_sa.restoring = ''on''.'
      );
  END IF;
  RETURN NEW;
END
$eventstore_sa$
