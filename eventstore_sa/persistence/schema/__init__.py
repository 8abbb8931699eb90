"""What exists in the database: tables, mapped classes, functions and triggers."""

from eventstore_sa.persistence.schema.schema import SCHEMA_VERSION, EventStoreSchema, default_schema, schema_or_default
from eventstore_sa.persistence.schema.tables import EventRecord
from eventstore_sa.persistence.schema.verification import verify_schema

__all__ = ["SCHEMA_VERSION", "EventRecord", "EventStoreSchema", "default_schema", "schema_or_default", "verify_schema"]
