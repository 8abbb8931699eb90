-- Events are history: the table is append-only by the database's word.
CREATE TRIGGER {trigger} BEFORE UPDATE ON {table_bare} BEGIN
  SELECT RAISE(ABORT, 'UPDATE is forbidden: events are history and stay as they were stored. Publish an event that corrects the earlier one. To empty the tables in tests: eventstore_sa.testing.clear().');
END
