-- The guarded append, which also loads and locks the inline projections of the stream that is published to.
--
-- wanted: [{"name", "id"}, ...], in the order in which they are locked
-- loaded: those that exist, as an array of JSON objects; absent if nothing was stored.
CREATE OR REPLACE FUNCTION {append_and_load_v1}(
  document jsonb, wanted jsonb,
  OUT outcome text, OUT item int, OUT last_position bigint,
  OUT last_positions bigint[], OUT sequence_numbers bigint[], OUT problem jsonb, OUT loaded text
)
LANGUAGE plpgsql AS $eventstore_sa$
DECLARE
  projections constant bigint := '{projections_literal}'::regclass::oid::bigint;
  want record;
  found text;
BEGIN
  SELECT a.* INTO outcome, item, last_position, last_positions, sequence_numbers, problem FROM {append_guarded_v1}(document) a;
  IF outcome <> 'stored' THEN
    RETURN;
  END IF;
  FOR want IN
    SELECT i.part ->> 'name'::text AS name, i.part ->> 'id'::text AS id
    FROM pg_catalog.jsonb_array_elements(wanted) WITH ORDINALITY AS i(part, ord) ORDER BY i.ord
  LOOP
    -- A rebuild of these projections takes it exclusively.
    PERFORM pg_catalog.pg_advisory_xact_lock_shared(
      pg_catalog.hashtextextended(pg_catalog.concat('n', want.name), projections)
    );
    -- A new statement, so that its snapshot is younger than the locks.
    SELECT pg_catalog.json_build_object(
      'name', p.name, 'id', p.id, 'source', p.source, 'state', p.state, 'metadata', p.metadata, 'version', p.version,
      'sequence_number', p.sequence_number, 'source_hash', p.source_hash
    )::text
    INTO found
    FROM {projections} p
    WHERE p.name = want.name COLLATE "C" AND p.id = want.id COLLATE "C"
    FOR NO KEY UPDATE;
    loaded := pg_catalog.concat_ws(',', loaded, found);
  END LOOP;
  loaded := pg_catalog.concat('[', loaded, ']');
END
$eventstore_sa$
