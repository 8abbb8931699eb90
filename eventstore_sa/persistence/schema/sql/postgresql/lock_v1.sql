-- Take the locks of a publish, each once in its strongest mode, in one global order: log, categories, streams, all tags, tags.
--
-- Shared on log and categories, exclusive on the streams. Beyond that, for each item of the document:
--   "scope": "category" or "log": exclusive there, because a condition looks at all of it
--   "serialise": "category" or "log": exclusive there, because publishes are to follow one another (locking = advisory)
--   "written_tags": exclusive on these tags, because events with them are stored
--   "read_tags": shared on these tags, because a condition looks at events with them
-- Whoever locks a tag locks all tags as well, shared. A transaction that would hold too many locks takes an exclusive one on
-- all tags, on whole categories, or on the log, instead.
CREATE OR REPLACE FUNCTION {lock_v1}(document jsonb) RETURNS void
LANGUAGE plpgsql AS $eventstore_sa$
DECLARE
  events constant bigint := '{events_literal}'::regclass::oid::bigint;
  log_key constant bigint := pg_catalog.hashtextextended('', events);
  counter constant text := pg_catalog.concat('eventstore_sa.locks_', events);
  held int := coalesce(nullif(pg_catalog.current_setting(counter, true), ''), '0')::int;
  most constant int := pg_catalog.current_setting('max_locks_per_transaction')::int / 2;
  wanted int;
  categories text[];
  scoped text[];
  scopes text[];
  serialised text;
  category_lock record;
  tagged boolean;
  tags int := 0;
  tag_keys bigint[];
  tags_written boolean[];
BEGIN
  SELECT pg_catalog.count(*), pg_catalog.array_agg(DISTINCT s.category), pg_catalog.array_agg(DISTINCT s.scope),
    pg_catalog.array_agg(DISTINCT s.category) FILTER (WHERE s.scope = 'category'), pg_catalog.min(s.serialise),
    pg_catalog.bool_or(s.written_tags IS NOT NULL OR s.read_tags IS NOT NULL)
  INTO wanted, categories, scopes, scoped, serialised, tagged
  FROM pg_catalog.jsonb_to_recordset(document) AS s(
    category text COLLATE "C", stream text COLLATE "C", scope text, serialise text, written_tags jsonb, read_tags jsonb
  );
  wanted := wanted + pg_catalog.cardinality(categories);
  IF tagged THEN
    SELECT pg_catalog.array_agg(k.key ORDER BY k.key), pg_catalog.array_agg(k.written ORDER BY k.key)
    INTO tag_keys, tags_written
    FROM (
      SELECT pg_catalog.hashtextextended(pg_catalog.concat('t', t.tag), events) AS key, pg_catalog.bool_or(t.written) AS written
      FROM pg_catalog.jsonb_to_recordset(document) AS s(written_tags jsonb, read_tags jsonb), LATERAL (
        SELECT w.tag, true FROM pg_catalog.jsonb_array_elements_text(s.written_tags) w(tag)
        UNION ALL
        SELECT r.tag, false FROM pg_catalog.jsonb_array_elements_text(s.read_tags) r(tag)
      ) t(tag, written)
      GROUP BY 1
    ) k;
    tags := pg_catalog.cardinality(tag_keys) + 1;
  END IF;
  IF held + wanted + tags > most THEN
    -- The counter counts a lock again whenever it is taken again; the lock table does not.
    SELECT pg_catalog.count(*) INTO held FROM pg_catalog.pg_locks l
    WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.pid = pg_catalog.pg_backend_pid();
    IF tagged AND held + wanted + tags > most THEN
      tags := 1;
      tag_keys := NULL;
    END IF;
  END IF;
  wanted := wanted + tags;
  PERFORM pg_catalog.set_config(counter, (held + wanted)::text, true);

  IF serialised = 'log' THEN
    PERFORM pg_catalog.pg_advisory_xact_lock(log_key);
    RETURN;
  END IF;
  IF 'log' = ANY (scopes) OR pg_catalog.cardinality(categories) > most THEN
    PERFORM {lock_widely_v1}(log_key, 'the log'::text);
    RETURN;
  END IF;
  PERFORM pg_catalog.pg_advisory_xact_lock_shared(log_key);

  IF serialised = 'category' OR scoped IS NOT NULL OR held + wanted > most THEN
    FOR category_lock IN
      SELECT c.category, pg_catalog.hashtextextended(pg_catalog.concat('c', c.category), events) AS key
      FROM pg_catalog.unnest(categories) c(category) ORDER BY key
    LOOP
      IF serialised = 'category' THEN
        PERFORM pg_catalog.pg_advisory_xact_lock(category_lock.key);
      ELSIF held + wanted > most OR category_lock.category = ANY (scoped) THEN
        PERFORM {lock_widely_v1}(
          category_lock.key, pg_catalog.concat('category ', pg_catalog.quote_literal(category_lock.category))
        );
      ELSE
        PERFORM pg_catalog.pg_advisory_xact_lock_shared(category_lock.key);
      END IF;
    END LOOP;
  ELSE
    PERFORM pg_catalog.pg_advisory_xact_lock_shared(k.key)
    FROM (
      SELECT pg_catalog.hashtextextended(pg_catalog.concat('c', c.category), events) AS key
      FROM pg_catalog.unnest(categories) c(category) ORDER BY key
    ) k;
  END IF;

  IF held + wanted <= most THEN
    PERFORM pg_catalog.pg_advisory_xact_lock(k.key)
    FROM (
      SELECT DISTINCT pg_catalog.hashtextextended(
        pg_catalog.concat('s', pg_catalog.length(s.category), ':', s.category, s.stream), events
      ) AS key
      FROM pg_catalog.jsonb_to_recordset(document) AS s(category text COLLATE "C", stream text COLLATE "C")
      ORDER BY key
    ) k;
  END IF;

  IF tagged THEN
    PERFORM {lock_tags_v1}(tag_keys, tags_written);
  END IF;
END
$eventstore_sa$
