-- The locks on tags of a publish, each once in its stronger mode: exclusive for a tag of an event to be stored.
CREATE OR REPLACE FUNCTION {tag_locks_v1}(document jsonb) RETURNS TABLE (lock_key bigint, exclusively boolean)
LANGUAGE sql STABLE AS $eventstore_sa$
  SELECT
    pg_catalog.hashtextextended(pg_catalog.concat('t', locked.tag), '{events_literal}'::regclass::oid::bigint),
    pg_catalog.bool_or(locked.written)
  FROM (
    SELECT w.tag, true
    FROM pg_catalog.jsonb_to_recordset(document) AS s(written_tags jsonb),
      pg_catalog.jsonb_array_elements_text(s.written_tags) w(tag)
    UNION ALL
    SELECT r.tag, false
    FROM pg_catalog.jsonb_to_recordset(document) AS s(read_tags jsonb),
      pg_catalog.jsonb_array_elements_text(s.read_tags) r(tag)
  ) locked(tag, written)
  GROUP BY 1
  ORDER BY 1
$eventstore_sa$
