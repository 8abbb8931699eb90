-- Store several publishes in one call, each of which stands for itself: what becomes of one changes nothing for the others.
--
-- document: the items of all publishes, one publish after the other; see append_v1
-- sizes: how many items each publish has
-- results: for each publish 0 if it is stored; the number of an item, from 1, if the condition of this one is not met; -1 if it
--   is busy: a lock was not free at once, or it follows a busy publish to the same stream; -2 if one of its ids is stored
--   already. NULL if the transaction is not READ COMMITTED: then nothing is stored.
-- last_positions: for each item the position of the last event of its stream, those of earlier publishes included
-- sequence_numbers: those of all events that are stored, in the order of the document
-- most_locks: how many locks the publishes of one call should need at most
--
-- Nothing is waited for: one stream that somebody holds would hold up the publishes to all others. So the locks may be taken in
-- any order. No lock is wider than a publish asks for, and publishes with a "scope" are busy.
CREATE OR REPLACE FUNCTION {append_each_v1}(
  document jsonb, sizes int[],
  OUT results int[], OUT last_positions bigint[], OUT sequence_numbers bigint[], OUT most_locks int
)
LANGUAGE plpgsql AS $eventstore_sa$
DECLARE
  events constant bigint := '{events_literal}'::regclass::oid::bigint;
  log_key constant bigint := pg_catalog.hashtextextended('', events);
  all_tags_key constant bigint := pg_catalog.hashtextextended('t', events);
  serialise constant text := document -> 0 ->> 'serialise'::text;
  is_tagged constant boolean := pg_catalog.jsonb_path_exists(document, '$[*].events[*].tags');
  is_open boolean;
  locked boolean[];
  streams int[];
  counts int[];
  met boolean[];
  taken boolean[];
  has_alternatives boolean[];
  accepted boolean[];
  busy_streams int[];
  ends bigint[];
  ends_before bigint[];
  first int := 1;
  final int;
  result int;
  part jsonb;
  part_positions bigint[];
  earlier int;
  tagged jsonb;
BEGIN
  most_locks := pg_catalog.current_setting('max_locks_per_transaction')::int / 2;
  IF pg_catalog.current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
    RETURN;
  END IF;

  IF serialise = 'log' THEN
    is_open := pg_catalog.pg_try_advisory_xact_lock(log_key);
  ELSE
    is_open := pg_catalog.pg_try_advisory_xact_lock_shared(log_key);
  END IF;
  IF NOT is_open THEN
    results := pg_catalog.array_fill(-1, ARRAY[pg_catalog.cardinality(sizes)]);
    RETURN;
  END IF;
  SELECT pg_catalog.array_agg(l.stream ORDER BY l.ord), pg_catalog.array_agg(l.is_locked ORDER BY l.ord)
  INTO streams, locked
  FROM (
    SELECT
      s.ord, (pg_catalog.dense_rank() OVER (ORDER BY s.category, s.stream))::int AS stream,
      s.scope IS NULL
        AND CASE
          WHEN serialise = 'category' THEN
            pg_catalog.pg_try_advisory_xact_lock(pg_catalog.hashtextextended(pg_catalog.concat('c', s.category), events))
          ELSE
            pg_catalog.pg_try_advisory_xact_lock_shared(pg_catalog.hashtextextended(pg_catalog.concat('c', s.category), events))
        END
        AND pg_catalog.pg_try_advisory_xact_lock(pg_catalog.hashtextextended(
          pg_catalog.concat('s', pg_catalog.length(s.category), ':', s.category, s.stream), events
        )) AS is_locked
    FROM ROWS FROM (
      pg_catalog.jsonb_to_recordset(document) AS (category text COLLATE "C", stream text COLLATE "C", scope text)
    ) WITH ORDINALITY AS s(category, stream, scope, ord)
  ) l;
  IF pg_catalog.jsonb_path_exists(document, '$[*] ? (exists (@.written_tags) || exists (@.read_tags))') THEN
    is_open := pg_catalog.pg_try_advisory_xact_lock_shared(all_tags_key);
    SELECT pg_catalog.array_agg(locked[l.ord] AND l.is_locked ORDER BY l.ord) INTO locked
    FROM (
      SELECT s.ord, coalesce(pg_catalog.bool_and(t.is_locked), true) AS is_locked
      FROM ROWS FROM (
        pg_catalog.jsonb_to_recordset(document) AS (written_tags jsonb, read_tags jsonb)
      ) WITH ORDINALITY AS s(written_tags, read_tags, ord)
      LEFT JOIN LATERAL (
        SELECT is_open AND pg_catalog.pg_try_advisory_xact_lock(
          pg_catalog.hashtextextended(pg_catalog.concat('t', w.tag), events)
        )
        FROM pg_catalog.jsonb_array_elements_text(s.written_tags) w(tag)
        UNION ALL
        SELECT is_open AND pg_catalog.pg_try_advisory_xact_lock_shared(
          pg_catalog.hashtextextended(pg_catalog.concat('t', r.tag), events)
        )
        FROM pg_catalog.jsonb_array_elements_text(s.read_tags) r(tag)
      ) t(is_locked) ON true
      GROUP BY s.ord
    ) l;
  END IF;

  -- A new statement, so that its snapshot is younger than the locks.
  SELECT
    pg_catalog.array_agg(found.last ORDER BY found.ord),
    pg_catalog.array_agg(found.count ORDER BY found.ord),
    pg_catalog.array_agg(
      found.allowed IS NULL OR EXISTS (
        SELECT FROM pg_catalog.jsonb_array_elements(found.allowed) r(bounds)
        WHERE found.last >= (r.bounds ->> 0)::bigint AND found.last <= coalesce((r.bounds ->> 1)::bigint, found.last)
      ) ORDER BY found.ord
    ),
    pg_catalog.array_agg(found.alternatives IS NOT NULL ORDER BY found.ord),
    pg_catalog.array_agg(found.taken ORDER BY found.ord)
  INTO last_positions, counts, met, has_alternatives, taken
  FROM (
    SELECT
      s.ord, s.allowed, s.alternatives, pg_catalog.jsonb_array_length(s.events) AS count,
      coalesce((
        SELECT e.position FROM {events} e
        WHERE e.category = s.category AND e.stream = s.stream
        ORDER BY e.position DESC LIMIT 1
      ), -1) AS last,
      (
        SELECT pg_catalog.bool_or((SELECT true FROM {events} e WHERE e.id = n.id))
        FROM pg_catalog.jsonb_to_recordset(s.events) n(id uuid)
      ) IS NOT NULL AS taken
    FROM ROWS FROM (
      pg_catalog.jsonb_to_recordset(document) AS (
        category text COLLATE "C", stream text COLLATE "C", events jsonb, allowed jsonb, alternatives jsonb
      )
    ) WITH ORDINALITY AS s(category, stream, events, allowed, alternatives, ord)
  ) found;

  -- Publish by publish: the ends of streams move with what is accepted, and with nothing else.
  FOR publish IN 1 .. pg_catalog.cardinality(sizes) LOOP
    final := first + sizes[publish] - 1;
    result := 0;
    ends_before := ends;
    FOR i IN first .. final LOOP
      IF NOT locked[i] OR streams[i] = ANY (busy_streams) THEN
        result := -1;
      ELSIF taken[i] AND result <> -1 THEN
        result := -2;
      ELSIF result >= 0 THEN
        IF ends[streams[i]] IS NOT NULL THEN
          last_positions[i] := ends[streams[i]];
          met[i] := document -> (i - 1) -> 'allowed'::text IS NULL OR EXISTS (
            SELECT FROM pg_catalog.jsonb_array_elements(document -> (i - 1) -> 'allowed'::text) r(bounds)
            WHERE last_positions[i] >= (r.bounds ->> 0)::bigint
              AND last_positions[i] <= coalesce((r.bounds ->> 1)::bigint, last_positions[i])
          );
        END IF;
        IF result = 0 AND NOT met[i] THEN
          result := i;
        END IF;
        ends[streams[i]] := last_positions[i] + counts[i];
      END IF;
    END LOOP;
    IF result >= 0 AND true = ANY (has_alternatives[first:final]) THEN
      SELECT
        pg_catalog.jsonb_agg(
          CASE WHEN d.ord < first THEN pg_catalog.jsonb_build_object('events', d.item -> 'events'::text) ELSE d.item END ORDER BY d.ord
        ),
        pg_catalog.array_agg(last_positions[d.ord] ORDER BY d.ord),
        (pg_catalog.count(*) FILTER (WHERE d.ord < first))::int
      INTO part, part_positions, earlier
      FROM pg_catalog.jsonb_array_elements(document) WITH ORDINALITY AS d(item, ord)
      WHERE d.ord <= final AND (d.ord >= first OR accepted[d.ord]);
      result := coalesce(least(nullif(result, 0), first + {unmet_v1}(part, part_positions) - earlier), 0);
    END IF;
    FOR i IN first .. final LOOP
      accepted[i] := result = 0;
      IF result = -1 THEN
        busy_streams := pg_catalog.array_append(busy_streams, streams[i]);
      END IF;
    END LOOP;
    IF result <> 0 THEN
      ends := ends_before;
    END IF;
    results[publish] := result;
    first := final + 1;
  END LOOP;

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
    WHERE accepted[i.ord]
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
END
$eventstore_sa$
