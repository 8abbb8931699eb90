-- The tags of an event are indexed in the statement that stores it, whatever statement that is. What is not a string is no tag.
CREATE TRIGGER {trigger} AFTER INSERT ON {table_bare} WHEN NEW.tags IS NOT NULL BEGIN
  INSERT INTO {event_tags_bare} (tag, sequence_number, name)
  SELECT DISTINCT t.value, NEW.sequence_number, NEW.name FROM json_each(NEW.tags) t WHERE t.type = 'text';
END
