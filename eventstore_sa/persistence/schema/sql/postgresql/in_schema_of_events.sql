-- Create a function or trigger for tables without a named schema, in the schema in which the search path finds the table of
-- events. A function's body names that schema, as it does where the schema is known beforehand; a trigger has none.
DO {tag}
DECLARE
  events constant regclass := pg_catalog.to_regclass('{events_literal}');
  body text := {body};
  found text;
BEGIN
  IF events IS NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = 'undefined_table',
      MESSAGE = 'the search path leads to no table {events_literal}: set it, or name the schema of the event store';
  END IF;
  -- Quoted, as in the place of a name; within a literal, apostrophes are doubled besides.
  SELECT '"' || pg_catalog.replace(n.nspname::text, '"', '""') || '"' INTO found
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE c.oid = events::oid;
  body := pg_catalog.replace(body, '''{unknown}', '''' || pg_catalog.replace(found, '''', ''''''));
  body := pg_catalog.replace(body, '{unknown}', found);
  EXECUTE pg_catalog.replace({head}, '{unknown}', found) || coalesce(pg_catalog.quote_literal(body), '');
END
{tag}
