-- The append for a transaction of the caller's: whatever goes wrong comes back as a row, the transaction stays usable,
-- and the subtransaction of the exception block gives back the locks and the fence.
CREATE OR REPLACE FUNCTION {append_guarded_v1}(
  document jsonb,
  OUT outcome text, OUT item int, OUT last_position bigint,
  OUT last_positions bigint[], OUT sequence_numbers bigint[], OUT problem jsonb
)
LANGUAGE plpgsql AS $eventstore_sa$
DECLARE
  state text;
  violated text;
  said text;
BEGIN
  SELECT a.* INTO outcome, item, last_position, last_positions, sequence_numbers, problem FROM {append_v1}(document, true) a;
  IF outcome <> 'stored' THEN
    RAISE EXCEPTION USING ERRCODE = 'ES001';
  END IF;
EXCEPTION
  WHEN SQLSTATE 'ES001' THEN
    NULL;
  WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, violated = CONSTRAINT_NAME, said = MESSAGE_TEXT;
    outcome := 'problem';
    problem := pg_catalog.jsonb_build_object('sqlstate', state, 'constraint', violated, 'message', said);
END
$eventstore_sa$
