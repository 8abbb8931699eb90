-- The position fence. Before the first number of a transaction is drawn, a shared advisory lock announces the last value
-- of the sequence: every number that this transaction will draw is above it. Readers stop at the lowest fence.
-- Fired by BEFORE INSERT FOR EACH STATEMENT, so that no way of inserting goes past it.
CREATE OR REPLACE FUNCTION {fence_v1}() RETURNS trigger
LANGUAGE plpgsql AS $eventstore_sa$
DECLARE
  -- Named after the table, and transaction-local: it reverts with a savepoint, just as the lock does.
  raised constant text := pg_catalog.concat('eventstore_sa.fence_', TG_RELID);
  last_number bigint;
BEGIN
  IF coalesce(pg_catalog.current_setting(raised, true), '') = '' THEN
    last_number := {last_number_v1}(TG_RELID::regclass);
    -- The two-integer form meets no bigint lock: the table, and the low 32 bits of the number as a signed integer.
    PERFORM pg_catalog.pg_advisory_xact_lock_shared(TG_RELID::int4, ((last_number << 32) >> 32)::int4);
    PERFORM pg_catalog.set_config(raised, last_number::text, true);
  END IF;
  RETURN NULL;
END
$eventstore_sa$
