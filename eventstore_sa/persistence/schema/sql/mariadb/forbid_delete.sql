-- Events are history: {table_bare} is append-only by the database's word. A message has room for 128 characters.
CREATE TRIGGER {trigger} BEFORE DELETE ON {table} FOR EACH ROW
SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT =
  'DELETE is forbidden: events are history and stay as they were stored. For tests: eventstore_sa.testing.clear()'
