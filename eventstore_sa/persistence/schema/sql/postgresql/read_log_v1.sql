-- A page of the log for SQL clients, complete: nothing that is committed later will appear at or before its last event.
CREATE OR REPLACE FUNCTION {read_log_v1}(after_number bigint, page_size int) RETURNS TABLE (
  sequence_number bigint, id uuid, category text, stream text, "position" bigint, name text,
  payload jsonb, metadata jsonb, observed_at timestamptz, occurred_at timestamptz, tags jsonb, version int
)
LANGUAGE plpgsql VOLATILE AS $eventstore_sa$
DECLARE
  up_to bigint;
BEGIN
  SELECT w.watermark INTO up_to FROM {watermark_v1}() w;
  RETURN QUERY
    SELECT
      e.sequence_number, e.id, e.category, e.stream, e.position, e.name,
      e.payload, e.metadata, e.observed_at, e.occurred_at, e.tags, e.version
    FROM {events} e
    WHERE e.sequence_number > after_number AND e.sequence_number <= up_to
    ORDER BY e.sequence_number
    LIMIT page_size;
END
$eventstore_sa$
