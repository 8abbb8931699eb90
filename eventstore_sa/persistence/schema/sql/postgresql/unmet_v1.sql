-- Return the first item of a publish of which no alternative holds, or NULL. To be called under the locks of the publish.
--
-- An alternative holds if the last position is in "allowed", or there is none, and if of each of "absent"
--   - the event "last_id" is still stored with the number "after", where it is given, and
--   - no event with one of "names" and all of "tags" is stored with a number above "after", or among earlier items.
CREATE OR REPLACE FUNCTION {unmet_v1}(document jsonb, last_positions bigint[]) RETURNS int
LANGUAGE plpgsql AS $eventstore_sa$
BEGIN
  RETURN (
    SELECT pg_catalog.min(s.ord) - 1
    FROM ROWS FROM (
      pg_catalog.jsonb_to_recordset(document) AS (alternatives jsonb)
    ) WITH ORDINALITY AS s(alternatives, ord)
    WHERE s.alternatives IS NOT NULL AND NOT EXISTS (
      SELECT FROM pg_catalog.jsonb_to_recordset(s.alternatives) w(allowed jsonb, absent jsonb)
      WHERE (
        w.allowed IS NULL OR EXISTS (
          SELECT FROM pg_catalog.jsonb_array_elements(w.allowed) r(bounds)
          WHERE last_positions[s.ord] >= (r.bounds ->> 0)::bigint
            AND last_positions[s.ord] <= coalesce((r.bounds ->> 1)::bigint, last_positions[s.ord])
        )
      ) AND NOT EXISTS (
        SELECT FROM pg_catalog.jsonb_to_recordset(w.absent) a(names jsonb, tags jsonb, after bigint, last_id uuid)
        WHERE (
          a.last_id IS NOT NULL AND NOT EXISTS (
            SELECT FROM {events} e WHERE e.sequence_number = a.after AND e.id = a.last_id
          )
        ) OR EXISTS (
          SELECT FROM {event_tags} t
          WHERE t.tag = a.tags ->> 0 AND t.sequence_number > a.after
            AND (a.names IS NULL OR pg_catalog.jsonb_exists(a.names, t.name))
            AND NOT EXISTS (
              SELECT FROM pg_catalog.jsonb_array_elements_text(a.tags) n(tag)
              WHERE NOT EXISTS (SELECT FROM {event_tags} o WHERE o.tag = n.tag AND o.sequence_number = t.sequence_number)
            )
        ) OR (
          a.tags IS NULL AND EXISTS (
            SELECT FROM {events} e
            WHERE e.sequence_number > a.after AND (a.names IS NULL OR pg_catalog.jsonb_exists(a.names, e.name))
          )
        ) OR EXISTS (
          SELECT FROM ROWS FROM (
            pg_catalog.jsonb_to_recordset(document) AS (events jsonb)
          ) WITH ORDINALITY AS d(events, ord),
            pg_catalog.jsonb_to_recordset(d.events) e(name text, tags jsonb)
          WHERE d.ord < s.ord
            AND (a.names IS NULL OR pg_catalog.jsonb_exists(a.names, e.name))
            AND (a.tags IS NULL OR e.tags @> a.tags)
        )
      )
    )
  );
END
$eventstore_sa$
