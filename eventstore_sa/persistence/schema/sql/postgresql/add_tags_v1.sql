-- Add tags to stored events, and index them; return the amount of events that did not have all of them. Only the owner of the tables may.
--
-- document: [{"number": the sequence number of an event, "tags": [...]}, ...]
-- epoch: a text that was never passed before. It is recorded if anything is added, and decisions that were made under another
--   one are refused: what they remember of an item tells nothing of events before its last that now belong to it.
-- Like a publish with all of the tags there are, it waits for others that write tags or depend on them, and they wait for it.
CREATE OR REPLACE FUNCTION {add_tags_v1}(document jsonb, epoch text, OUT amount bigint)
LANGUAGE plpgsql AS $eventstore_sa$
DECLARE
  events constant bigint := '{events_literal}'::regclass::oid::bigint;
  changed jsonb;
BEGIN
  IF pg_catalog.current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
    RAISE EXCEPTION USING
      ERRCODE = 'ES003',
      MESSAGE = 'adding tags to stored events needs READ COMMITTED: an older snapshot may not see the tags that they have';
  END IF;
  PERFORM pg_catalog.pg_advisory_xact_lock_shared(pg_catalog.hashtextextended('', events));
  PERFORM {lock_tags_v1}(NULL::bigint[], NULL::boolean[]);

  PERFORM pg_catalog.set_config('eventstore_sa.adding_tags', 'on', true);
  WITH updated AS (
    UPDATE {events} e SET tags = u.tags
    FROM (
      SELECT o.sequence_number, (
        SELECT pg_catalog.jsonb_agg(t.tag ORDER BY t.tag COLLATE "C")
        FROM (
          SELECT a.tag FROM pg_catalog.jsonb_array_elements_text(o.tags) a(tag)
          UNION
          SELECT n.tag FROM pg_catalog.jsonb_array_elements_text(d.tags) n(tag)
        ) t
      ) AS tags
      FROM pg_catalog.jsonb_to_recordset(document) AS d(number bigint, tags jsonb)
      JOIN {events} o ON o.sequence_number = d.number
    ) u
    WHERE e.sequence_number = u.sequence_number AND e.tags IS DISTINCT FROM u.tags
    RETURNING e.sequence_number, e.name, e.tags
  )
  SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(u.sequence_number, u.name, u.tags)) INTO changed FROM updated u;
  PERFORM pg_catalog.set_config('eventstore_sa.adding_tags', '', true);
  IF changed IS NULL THEN
    amount := 0;
    RETURN;
  END IF;

  PERFORM pg_catalog.set_config('eventstore_sa.publishing_tags', 'on', true);
  INSERT INTO {event_tags} (tag, sequence_number, name)
  SELECT s.tag, (c.entry ->> 0)::bigint, c.entry ->> 1
  FROM pg_catalog.jsonb_array_elements(changed) c(entry), pg_catalog.jsonb_array_elements_text(c.entry -> 2) s(tag)
  ON CONFLICT DO NOTHING;
  PERFORM pg_catalog.set_config('eventstore_sa.publishing_tags', '', true);
  UPDATE {schema_row} SET tags_epoch = epoch;
  amount := pg_catalog.jsonb_array_length(changed);
END
$eventstore_sa$
