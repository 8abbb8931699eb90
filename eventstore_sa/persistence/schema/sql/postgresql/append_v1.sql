-- Store the events of a publish, all or none, in one call: lock, look at the last positions, check, insert.
--
-- document: [{"category", "stream", "allowed": [[low, high or null], ...], "events": [{"id", "name", "payload", "metadata",
--             "observed_at", "occurred_at", "tags": [...], "version"}, ...]}, ...]
--   allowed: ranges of the stream's last position, -1 for an empty stream; absent: any. Times are in ISO 8601, with an offset.
--   tags and version: absent for none, and for 1
--   Besides what lock_v1 looks at, an item may have instead of "allowed":
--   alternatives: [{"allowed", "absent": [{"names", "tags", "after", "last_id"}, ...]}, ...], one of which must hold; see unmet_v1
-- hosted: whether the transaction belongs to the caller, and goes on after this
-- outcome: 'stored'; 'unmet' with the item whose condition failed and the position found, and in problem {"taken": whether one
--   of the ids is stored}; 'isolation' when a transaction of our own is not READ COMMITTED. Nothing is stored but with 'stored'.
CREATE OR REPLACE FUNCTION {append_v1}(
  document jsonb, hosted boolean,
  OUT outcome text, OUT item int, OUT last_position bigint,
  OUT last_positions bigint[], OUT sequence_numbers bigint[], OUT problem jsonb
)
LANGUAGE plpgsql AS $eventstore_sa$
DECLARE
  is_tagged constant boolean := pg_catalog.jsonb_path_exists(document, '$[*].events[*].tags');
  tagged jsonb;
  has_alternatives boolean;
BEGIN
  IF pg_catalog.current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
    IF NOT hosted THEN
      outcome := 'isolation';
      RETURN;
    END IF;
    -- The unique key decides races on streams that are written; nothing would decide them on others.
    IF EXISTS (
      SELECT FROM pg_catalog.jsonb_to_recordset(document) s(events jsonb, allowed jsonb)
      WHERE s.allowed IS NOT NULL AND pg_catalog.jsonb_array_length(s.events) = 0
    ) THEN
      RAISE EXCEPTION USING
        ERRCODE = 'ES003',
        MESSAGE = 'a condition on a stream that the publish does not write needs READ COMMITTED: an older snapshot may not see its last event';
    END IF;
    IF EXISTS (SELECT FROM pg_catalog.jsonb_to_recordset(document) s(alternatives jsonb) WHERE s.alternatives IS NOT NULL) THEN
      RAISE EXCEPTION USING
        ERRCODE = 'ES003',
        MESSAGE = 'a condition on events of a query needs READ COMMITTED: an older snapshot may not see the last of them';
    END IF;
  END IF;

  PERFORM {lock_v1}(document);

  -- A new statement, so that its snapshot is younger than the locks.
  SELECT
    pg_catalog.array_agg(found.last ORDER BY found.item),
    pg_catalog.min(found.item) FILTER (
      WHERE found.allowed IS NOT NULL AND NOT EXISTS (
        SELECT FROM pg_catalog.jsonb_array_elements(found.allowed) r(bounds)
        WHERE found.last >= (r.bounds ->> 0)::bigint AND found.last <= coalesce((r.bounds ->> 1)::bigint, found.last)
      )
    ),
    pg_catalog.bool_or(found.has_alternatives)
  INTO last_positions, item, has_alternatives
  FROM (
    SELECT
      s.ord - 1 AS item, s.allowed, s.alternatives IS NOT NULL AS has_alternatives,
      coalesce((
        SELECT e.position FROM {events} e
        WHERE e.category = s.category AND e.stream = s.stream
        ORDER BY e.position DESC LIMIT 1
      ), -1) + coalesce(pg_catalog.sum(pg_catalog.jsonb_array_length(s.events)) OVER (
        PARTITION BY s.category, s.stream ORDER BY s.ord ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
      ), 0) AS last
    FROM ROWS FROM (
      pg_catalog.jsonb_to_recordset(document) AS (
        category text COLLATE "C", stream text COLLATE "C", events jsonb, allowed jsonb, alternatives jsonb
      )
    ) WITH ORDINALITY AS s(category, stream, events, allowed, alternatives, ord)
  ) found;
  IF has_alternatives THEN
    item := least(item, {unmet_v1}(document, last_positions));
  END IF;
  IF item IS NOT NULL THEN
    outcome := 'unmet';
    last_position := last_positions[item + 1];
    -- Whether it may be a repetition. Id by id, so that the index is used, however small the table was when this was planned.
    SELECT pg_catalog.jsonb_build_object('taken', pg_catalog.bool_or((SELECT true FROM {events} e WHERE e.id = n.id)) IS NOT NULL)
    INTO problem
    FROM pg_catalog.jsonb_array_elements(document) i(part), pg_catalog.jsonb_to_recordset(i.part -> 'events'::text) n(id uuid);
    RETURN;
  END IF;

  IF is_tagged THEN
    PERFORM pg_catalog.set_config('eventstore_sa.publishing_tags', 'on', true);
  END IF;
  -- Numbers are drawn above the sort, so their order is the order of the document.
  WITH inserted AS (
    INSERT INTO {events} (id, category, stream, position, name, payload, metadata, observed_at, occurred_at, tags, version)
    SELECT
      n.id, i.part ->> 'category'::text, i.part ->> 'stream'::text, last_positions[i.ord] + n.ord, n.name,
      coalesce(n.payload, 'null'), n.metadata, n.observed_at, n.occurred_at, n.tags, coalesce(n.version, 1)
    FROM pg_catalog.jsonb_array_elements(document) WITH ORDINALITY AS i(part, ord),
      ROWS FROM (
        pg_catalog.jsonb_to_recordset(i.part -> 'events'::text) AS (
          id uuid, name text, payload jsonb, metadata jsonb, observed_at timestamptz, occurred_at timestamptz,
          tags jsonb, version int
        )
      ) WITH ORDINALITY AS n(id, name, payload, metadata, observed_at, occurred_at, tags, version, ord)
    ORDER BY i.ord, n.ord
    RETURNING sequence_number, name, tags
  )
  SELECT
    pg_catalog.array_agg(i.sequence_number ORDER BY i.sequence_number),
    pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(i.sequence_number, i.name, i.tags)) FILTER (WHERE i.tags IS NOT NULL)
  INTO sequence_numbers, tagged FROM inserted i;
  IF is_tagged THEN
    INSERT INTO {event_tags} (tag, sequence_number, name)
    SELECT s.tag, (i.entry ->> 0)::bigint, i.entry ->> 1
    FROM pg_catalog.jsonb_array_elements(tagged) i(entry), pg_catalog.jsonb_array_elements_text(i.entry -> 2) s(tag);
    PERFORM pg_catalog.set_config('eventstore_sa.publishing_tags', '', true);
  END IF;
  outcome := 'stored';
END
$eventstore_sa$
