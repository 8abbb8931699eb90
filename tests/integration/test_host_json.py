"""Whatever the application has chosen for JSON, on its engine or on its driver's connections, our JSON is not touched.

The choices here refuse everything, so that the first value that any of them is asked about makes a test fail.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn
from uuid import UUID

import psycopg.types.json
import psycopg2.extras
import pytest
from sqlalchemy import JSON, Text, cast, event, literal, select, text

from eventstore_sa import Projector, StreamIdentifier
from eventstore_sa.conditions import stream_is_empty
from eventstore_sa.errors import DuplicateEventError, StorageError, UnmetWriteConditionError
from eventstore_sa.persistence.schema.locking import FENCE, EventSerialisationGuarantee, Locking, locking_mode
from eventstore_sa.projection import ProjectionStore, SnapshotStore, SyncProjectionStore, SyncSnapshotStore
from eventstore_sa.query import FilterClause, Operator, Path, SortClause, SortField, SortOrder
from eventstore_sa.types import LogIdentifier, Projection
from tests.awaiting import collected, entered, settled
from tests.hosts import DRIVERS, Ground, Host, new_event
from tests.stores import record_locking

CHOSEN_ON_DRIVER = "tests_chosen_on_driver"
PAYLOAD = {"text": "ä", "number": 2**70, "float": 1e300, "null": None, "list": [1, [2.5]], "true": True}


class Touched(Exception):
    """JSON was shown to the application."""


def refuse(*_: Any, **__: Any) -> NoReturn:
    raise Touched


def asyncpg_codecs(form: str) -> Callable[[Any], None]:
    def choose(dbapi_connection: Any) -> None:
        for kind in ("json", "jsonb"):
            dbapi_connection.run_async(
                lambda driver, kind=kind: driver.set_type_codec(
                    kind, encoder=refuse, decoder=refuse, schema="pg_catalog", format=form
                )
            )

    return choose


def psycopg_functions(dbapi_connection: Any) -> None:
    driver = getattr(dbapi_connection, "driver_connection", dbapi_connection)
    psycopg.types.json.set_json_loads(refuse, driver)
    psycopg.types.json.set_json_dumps(refuse, driver)


def psycopg2_functions(dbapi_connection: Any) -> None:
    psycopg2.extras.register_default_json(dbapi_connection, loads=refuse)
    psycopg2.extras.register_default_jsonb(dbapi_connection, loads=refuse)


CHOICES: dict[str, tuple[str, Callable[[Any], None] | None]] = {
    **{f"{driver}, engine": (driver, None) for driver in DRIVERS},
    "asyncpg, text codec": ("postgresql+asyncpg", asyncpg_codecs("text")),
    "asyncpg, binary codec": ("postgresql+asyncpg", asyncpg_codecs("binary")),
    "psycopg, async": ("postgresql+psycopg_async", psycopg_functions),
    "psycopg": ("postgresql+psycopg", psycopg_functions),
    "psycopg2": ("postgresql+psycopg2", psycopg2_functions),
}


@pytest.fixture(params=CHOICES)
def host(request: pytest.FixtureRequest) -> Host:
    driver, choose = CHOICES[request.param]
    on_sqlite = driver.startswith("sqlite")
    ground: Ground = request.getfixturevalue("sqlite_ground" if on_sqlite else "postgres_ground")
    options = {CHOSEN_ON_DRIVER: True} if choose is not None else {}
    host = Host(
        ground, driver, poolclass=None, json_serializer=refuse, json_deserializer=refuse, execution_options=options
    )
    if choose is not None:

        @event.listens_for(getattr(host.engine, "sync_engine", host.engine), "connect")
        def _choose(dbapi_connection: Any, _: object) -> None:
            choose(dbapi_connection)

    return host


class KeepsAll(Projector[Any, Any, None]):
    """Has a state of its own, and a snapshot after each event."""

    name = "keeps-all"
    snapshot_every = 1

    def initial_state_factory(self) -> Any:
        return {"payloads": []}

    def initial_metadata_factory(self) -> None:
        return None

    def id_factory(self, state: Any, source: Any) -> str:
        return "all"

    def something_happened(self, state: Any, event: Any) -> Any:
        return {"payloads": [*state["payloads"], event.payload]}


async def publish_and_read(store: Any) -> None:
    stream = store.stream(category="orders", stream="1")
    await settled(stream.publish(events=[new_event(payload=PAYLOAD, id=UUID(int=1))], condition=stream_is_empty()))
    many = {StreamIdentifier("orders", name): {"events": [new_event(payload=PAYLOAD)]} for name in ("2", "3")}
    await settled(store.publish(streams=many))
    await settled(stream.publish(events=[new_event(payload=PAYLOAD, id=UUID(int=1))]))
    with pytest.raises(UnmetWriteConditionError):
        await settled(stream.publish(events=[new_event(payload=PAYLOAD)], condition=stream_is_empty()))
    with pytest.raises(DuplicateEventError):
        await settled(stream.publish(events=[new_event(payload=PAYLOAD), new_event(payload=PAYLOAD, id=UUID(int=1))]))

    for source in (stream, store.category(category="orders"), store.log()):
        for stored in await collected(source.iterate()):
            assert stored.payload == PAYLOAD


@pytest.mark.parametrize("locking", ["fence", "row"])
async def test_events_of_the_stores_own_transactions(host: Host, locking: Locking) -> None:
    store = host.store_on(host.engine)
    if locking == "row" and host.postgres:
        record_locking(host.ground.outside, locking_mode("row", EventSerialisationGuarantee.LOG))
        store = type(host.store)(host.engine, locking="row")
    try:
        await publish_and_read(store)
    finally:
        if host.postgres:
            record_locking(host.ground.outside, FENCE)
        await host.aclose()


async def test_events_in_a_session(host: Host) -> None:
    async with host.caller() as (session, store):
        await publish_and_read(store)
        store.stream(category="orders", stream="4").stage(events=[new_event(payload=PAYLOAD)])
        await settled(session.commit())
    await host.aclose()

    assert len(host.ground.names()) == 4


async def test_problem_that_comes_back_as_a_row(host: Host) -> None:
    if not host.postgres:
        return
    with host.ground.outside.begin() as connection:
        connection.execute(text("ALTER TABLE es_events ADD CONSTRAINT abhorrent CHECK (name <> 'abhorred')"))
    try:
        async with host.caller() as (_, store):
            with pytest.raises(StorageError, match="abhorrent"):
                await host.publish(store, "abhorred")
    finally:
        await host.aclose()
        with host.ground.outside.begin() as connection:
            connection.execute(text("ALTER TABLE es_events DROP CONSTRAINT abhorrent"))


async def test_projections(host: Host) -> None:
    kind: Any = ProjectionStore if host.asynchronous else SyncProjectionStore
    projections = kind(host.engine)
    projection = Projection(id="1", name="orders", source=LogIdentifier(), state=PAYLOAD, metadata={"more": PAYLOAD})
    assert await settled(projections.save(projection=projection)) == 1
    assert await settled(projections.save(projection=projection)) == 2
    assert await settled(projections.save(projection=projection, expected_version=2)) == 3

    found = [
        await settled(projections.load(name="orders", id="1")),
        await settled(projections.locate(source=LogIdentifier(), name="orders")),
        *await settled(
            projections.search(
                filters=[FilterClause(Operator.EQUAL, Path("state", "list"), PAYLOAD["list"])],
                sort=SortClause(fields=[SortField(Path("state", "text"), SortOrder.ASC)]),
            )
        ),
        *await collected(projections.iterate()),
    ]

    assert [each.state for each in found] == [PAYLOAD] * 4
    assert [each.metadata for each in found] == [{"more": PAYLOAD}] * 4
    await host.aclose()


async def test_snapshots_and_projecting(host: Host) -> None:
    stream = host.store.stream(category="orders", stream="1")
    snapshots: Any = (SnapshotStore if host.asynchronous else SyncSnapshotStore)(host.engine)
    projections: Any = (ProjectionStore if host.asynchronous else SyncProjectionStore)(host.engine)
    projector = KeepsAll()
    project = projector.project if host.asynchronous else projector.project_sync
    for number in range(1, 4):
        await settled(stream.publish(events=[new_event(payload=PAYLOAD)]))
        projection = await settled(project(source=stream, snapshots=snapshots))
        assert projection.state == {"payloads": [PAYLOAD] * number}

    assert await settled(projections.project(projector, events=await collected(host.store.log().iterate())))
    assert (await settled(projections.load(name="keeps-all", id="all"))).state == {"payloads": [PAYLOAD] * 3}
    await host.aclose()


async def test_the_choices_are_in_force(host: Host) -> None:
    async with entered(host.session()) as session:
        with pytest.raises(Touched):
            await settled(session.scalar(select(cast(literal("1", Text()), JSON()))))
    if CHOSEN_ON_DRIVER in host.engine.get_execution_options():
        async with entered(host.session()) as session:
            with pytest.raises(Touched):
                await host.execute(session, "SELECT CAST('1' AS jsonb)")
    await host.aclose()
