-- Lock tags, whose keys are given in ascending order, each exclusively or shared; without keys, all tags there are.
--
-- A tag that this transaction holds shared is not waited for in exclusive mode: two transactions that do that wait for each
-- other. Such tags are noted in a setting, which reverts with the savepoint as the locks do.
CREATE OR REPLACE FUNCTION {lock_tags_v1}(keys bigint[], exclusively boolean[]) RETURNS void
LANGUAGE plpgsql AS $eventstore_sa$
DECLARE
  events constant bigint := '{events_literal}'::regclass::oid::bigint;
  all_tags_key constant bigint := pg_catalog.hashtextextended('t', events);
  note constant text := pg_catalog.concat('eventstore_sa.shared_tags_', events);
  held_shared bigint[] := pg_catalog.string_to_array(pg_catalog.current_setting(note, true), ' ');
  newly_shared bigint[];
BEGIN
  IF keys IS NULL THEN
    PERFORM {lock_widely_v1}(all_tags_key, 'all tags'::text);
    RETURN;
  END IF;
  PERFORM pg_catalog.pg_advisory_xact_lock_shared(all_tags_key);
  FOR i IN 1 .. pg_catalog.cardinality(keys) LOOP
    IF NOT exclusively[i] THEN
      PERFORM pg_catalog.pg_advisory_xact_lock_shared(keys[i]);
      newly_shared := pg_catalog.array_append(newly_shared, keys[i]);
    ELSIF keys[i] = ANY (held_shared) THEN
      PERFORM {lock_widely_v1}(keys[i], 'a tag'::text);
    ELSE
      PERFORM pg_catalog.pg_advisory_xact_lock(keys[i]);
    END IF;
  END LOOP;
  IF newly_shared IS NOT NULL THEN
    PERFORM pg_catalog.set_config(note, pg_catalog.array_to_string(pg_catalog.array_cat(held_shared, newly_shared), ' '), true);
  END IF;
END
$eventstore_sa$
