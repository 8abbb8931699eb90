"""The library `eventsourcing` with its extension for SQLAlchemy."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from eventsourcing.application import Application

from benchmarks.contenders.eventsourcing_ import AggregateEvents
from benchmarks.databases import Database
from benchmarks.samples import INSERT_ORDER

__all__ = ["EventSourcingSqlAlchemy"]


class EventSourcingSqlAlchemy(AggregateEvents):
    """An application on `eventsourcing_sqlalchemy`."""

    name = "eventsourcing SQLAlchemy"
    setup = "`Application` with `eventsourcing_sqlalchemy` (psycopg, blocking; writers in threads)"
    gives_up = (
        "asyncio, categories, conditions other than the next version, numbers of the stored events; every writer locks the "
        "table until its transaction ends, the host's work in it included"
    )

    @classmethod
    @asynccontextmanager
    async def opened(cls, db: Database, connections: int) -> AsyncIterator[EventSourcingSqlAlchemy]:
        application: Application[UUID] = Application(
            env={
                "PERSISTENCE_MODULE": "eventsourcing_sqlalchemy",
                "SQLALCHEMY_URL": db.url("psycopg").render_as_string(hide_password=False),
            }
        )
        try:
            yield cls(application)
        finally:
            application.close()
            application.recorder.datastore.engine.dispose()

    async def transact(self, stream: int, events: Any, work_s: float) -> None:
        with self.application.recorder.transaction() as session:
            session.execute(INSERT_ORDER, {"id": stream})
            self.application.events.put(events)
            time.sleep(work_s)  # noqa: ASYNC251
