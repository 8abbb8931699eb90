"""Migrates only the tables of eventstore_sa: a standalone event store, without a host.

    alembic -x url=postgresql+psycopg://user@host/database upgrade head

or with the URL in EVENTSTORE_SA_URL. The driver may be asynchronous or synchronous. `-x prefix=` and `-x schema=` select an
event store other than the default one, and `-x locking=row/category` says how its writers exclude each other.
"""

import asyncio
import os

from sqlalchemy import Connection, NullPool, create_engine, make_url
from sqlalchemy.ext.asyncio import create_async_engine

import eventstore_sa.migrations  # noqa: F401
from alembic import context
from eventstore_sa import EventSerialisationGuarantee, EventStoreSchema

given = context.get_x_argument(as_dictionary=True)
address = given.get("url") or os.environ.get("EVENTSTORE_SA_URL")
if not address:
    raise SystemExit("Name the database: alembic -x url=URL ..., or the variable EVENTSTORE_SA_URL")
url = make_url(address)
locking, _, level = given.get("locking", "fence").partition("/")
schema = EventStoreSchema(
    prefix=given.get("prefix", "es_"),
    schema=given.get("schema"),
    locking=locking,
    serialisation_guarantee=EventSerialisationGuarantee(level or "log"),
)


def migrate(connection: Connection) -> None:
    """Run the revisions on a connection."""
    context.configure(
        connection=connection,
        target_metadata=schema.metadata,
        # Applications in the same database may have their own revisions.
        version_table=f"{schema.prefix}alembic_version",
        include_schemas=schema.schema is not None,
        # Tables of other applications are ignored.
        include_name=lambda name, kind, _: kind != "table" or name in {table.name for table in schema.tables},
    )
    with context.begin_transaction():
        context.run_migrations()


async def migrate_with_asyncio() -> None:
    """Run the revisions through an asyncio driver."""
    engine = create_async_engine(url, poolclass=NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(migrate)
    await engine.dispose()


if context.is_offline_mode():
    context.configure(url=url, version_table=f"{schema.prefix}alembic_version", literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
elif url.get_dialect().is_async:
    asyncio.run(migrate_with_asyncio())
else:
    sync_engine = create_engine(url, poolclass=NullPool)
    with sync_engine.connect() as sync_connection:
        migrate(sync_connection)
    sync_engine.dispose()
