"""Runs the revisions of the shop: `alembic upgrade head`."""

import asyncio

from sqlalchemy import Connection

import eventstore_sa.migrations  # noqa: F401
from alembic import context
from shop.database import Base, engine
from shop.orders import Order
from shop.reactions import Customer

TABLES = {Order.__table__, Customer.__table__}  # imported, so that Base knows them


def migrate(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=Base.metadata)
    with context.begin_transaction():
        context.run_migrations()


async def connect_and_migrate() -> None:
    async with engine.connect() as connection:
        await connection.run_sync(migrate)
    await engine.dispose()


asyncio.run(connect_and_migrate())
