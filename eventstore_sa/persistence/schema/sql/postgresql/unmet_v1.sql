-- Return the first item of a publish of which no alternative holds, or NULL. To be called under the locks of the publish.
--
-- An alternative holds if the last position is in "allowed", or there is none, and if of each of "absent"
--   - the event "last_id" is still stored with the number "after", where it is given,
--   - no tags have been added to stored events since "epoch", where it is given, and
--   - no event with one of "names" and all of "tags" is stored with a number above "after", or among earlier items.
-- Loops over small statements: for one statement that does it all, planners expect much work, and compile it.
CREATE OR REPLACE FUNCTION {unmet_v1}(document jsonb, last_positions bigint[]) RETURNS int
LANGUAGE plpgsql AS $eventstore_sa$
DECLARE
  item record;
  way record;
  absent record;
  holds boolean;
BEGIN
  FOR item IN
    SELECT s.alternatives, s.ord
    FROM ROWS FROM (
      pg_catalog.jsonb_to_recordset(document) AS (alternatives jsonb)
    ) WITH ORDINALITY AS s(alternatives, ord)
    WHERE s.alternatives IS NOT NULL ORDER BY s.ord
  LOOP
    holds := false;
    FOR way IN SELECT w.allowed, w.absent FROM pg_catalog.jsonb_to_recordset(item.alternatives) AS w(allowed jsonb, absent jsonb) LOOP
      holds := way.allowed IS NULL OR EXISTS (
        SELECT FROM pg_catalog.jsonb_array_elements(way.allowed) r(bounds)
        WHERE last_positions[item.ord] >= (r.bounds ->> 0)::bigint
          AND last_positions[item.ord] <= coalesce((r.bounds ->> 1)::bigint, last_positions[item.ord])
      );
      CONTINUE WHEN NOT holds;
      FOR absent IN
        SELECT a.names, a.tags, a.after, a.last_id, a.epoch
        FROM pg_catalog.jsonb_to_recordset(way.absent) AS a(names jsonb, tags jsonb, after bigint, last_id uuid, epoch text)
      LOOP
        IF absent.last_id IS NOT NULL THEN
          holds := EXISTS (SELECT FROM {events} e WHERE e.sequence_number = absent.after AND e.id = absent.last_id);
        END IF;
        IF absent.epoch IS NOT NULL THEN
          holds := holds AND EXISTS (SELECT FROM {schema_row} r WHERE r.tags_epoch = absent.epoch);
        END IF;
        IF NOT holds THEN
          NULL;
        ELSIF absent.tags IS NULL THEN
          PERFORM FROM {events} e
          WHERE e.sequence_number > absent.after AND (absent.names IS NULL OR pg_catalog.jsonb_exists(absent.names, e.name))
          ORDER BY e.sequence_number LIMIT 1;
          holds := NOT FOUND;
        ELSE
          PERFORM FROM {event_tags} t
          WHERE t.tag = absent.tags ->> 0 AND t.sequence_number > absent.after
            AND (absent.names IS NULL OR pg_catalog.jsonb_exists(absent.names, t.name))
            AND NOT EXISTS (
              SELECT FROM pg_catalog.jsonb_array_elements_text(absent.tags) n(tag)
              WHERE NOT EXISTS (SELECT FROM {event_tags} o WHERE o.tag = n.tag AND o.sequence_number = t.sequence_number)
            )
          ORDER BY t.sequence_number LIMIT 1;
          holds := NOT FOUND;
        END IF;
        IF holds AND item.ord > 1 THEN
          holds := NOT EXISTS (
            SELECT FROM ROWS FROM (
              pg_catalog.jsonb_to_recordset(document) AS (events jsonb)
            ) WITH ORDINALITY AS d(events, ord),
              pg_catalog.jsonb_to_recordset(d.events) e(name text, tags jsonb)
            WHERE d.ord < item.ord
              AND (absent.names IS NULL OR pg_catalog.jsonb_exists(absent.names, e.name))
              AND (absent.tags IS NULL OR e.tags @> absent.tags)
          );
        END IF;
        EXIT WHEN NOT holds;
      END LOOP;
      EXIT WHEN holds;
    END LOOP;
    IF NOT holds THEN
      RETURN item.ord - 1;
    END IF;
  END LOOP;
  RETURN NULL;
END
$eventstore_sa$
