-- Lock the tags of a publish in the order of their keys, or all tags there are.
--
-- A tag that this transaction holds shared is not waited for in exclusive mode: two transactions that do that wait for each
-- other. Such tags are noted in a setting, which reverts with the savepoint as the locks do.
CREATE OR REPLACE FUNCTION {lock_tags_v1}(document jsonb, all_of_them boolean) RETURNS void
LANGUAGE plpgsql AS $eventstore_sa$
DECLARE
  events constant bigint := '{events_literal}'::regclass::oid::bigint;
  all_tags_key constant bigint := pg_catalog.hashtextextended('t', events);
  note constant text := pg_catalog.concat('eventstore_sa.read_tags_', events);
  read_before constant text := coalesce(pg_catalog.current_setting(note, true), '');
  shared_keys constant bigint[] := pg_catalog.string_to_array(read_before, ' ');
  read_now text := read_before;
  tag record;
BEGIN
  IF all_of_them THEN
    PERFORM {lock_widely_v1}(all_tags_key, 'all tags'::text);
    RETURN;
  END IF;
  PERFORM pg_catalog.pg_advisory_xact_lock_shared(all_tags_key);
  FOR tag IN SELECT t.lock_key, t.exclusively FROM {tag_locks_v1}(document) t ORDER BY t.lock_key LOOP
    IF NOT tag.exclusively THEN
      PERFORM pg_catalog.pg_advisory_xact_lock_shared(tag.lock_key);
      read_now := pg_catalog.concat_ws(' ', nullif(read_now, ''), tag.lock_key);
    ELSIF tag.lock_key = ANY (shared_keys) THEN
      PERFORM {lock_widely_v1}(tag.lock_key, 'a tag'::text);
    ELSE
      PERFORM pg_catalog.pg_advisory_xact_lock(tag.lock_key);
    END IF;
  END LOOP;
  IF read_now <> read_before THEN
    PERFORM pg_catalog.set_config(note, read_now, true);
  END IF;
END
$eventstore_sa$
