-- Events are never changed or deleted: the table is append-only by the database's word.
CREATE OR REPLACE FUNCTION {forbid_change_v1}() RETURNS trigger
LANGUAGE plpgsql AS $eventstore_sa$
BEGIN
  RAISE EXCEPTION USING
    ERRCODE = 'ES010',
    MESSAGE = pg_catalog.concat(
      TG_OP, ' on ', TG_TABLE_NAME, ' is forbidden: events are history and stay as they were stored. ',
      'Publish an event that corrects the earlier one. To empty the tables in tests: eventstore_sa.testing.clear().'
    );
END
$eventstore_sa$
