"""Several stores in one database: by prefix, by schema, by a translated schema for each tenant; in one transaction too."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from eventstore_sa import EventStoreSchema, NewEvent, SyncEventStore
from eventstore_sa.conditions import position_is, stream_exists, stream_is_empty
from eventstore_sa.errors import UnmetWriteConditionError
from eventstore_sa.testing import clear
from tests.awaiting import collected, entered, settled
from tests.hosts import POSTGRES_DRIVERS, Host, each_driver
from tests.patience import PATIENCE_S

each_postgres_driver = each_driver(*POSTGRES_DRIVERS)

TENANTS = ("tenant_a", "tenant b")


@pytest.fixture
def tenants(host: Host) -> Iterator[dict[str, Any]]:
    """An engine for each tenant, over one pool, whose tables are in the tenant's own schema."""
    engine = host.make_engine()
    yield {tenant: engine.execution_options(schema_translate_map={None: tenant}) for tenant in TENANTS}
    with host.ground.outside.begin() as connection:
        for tenant in TENANTS:
            connection.execute(text(f'DROP SCHEMA IF EXISTS "{tenant}" CASCADE'))


async def published(store: Any, name: str, **arguments: Any) -> Any:
    (stored,) = await settled(
        store.stream(category="orders", stream="1").publish(events=[NewEvent(name=name, payload=None)], **arguments)
    )
    return stored


async def names_in(store: Any) -> list[str]:
    return [event.name for event in await collected(store.log().iterate())]


@each_postgres_driver
async def test_tenants_of_one_engine_have_nothing_in_common(host: Host, tenants: dict[str, Any]) -> None:
    a, b = (host.store_on(engine) for engine in tenants.values())
    await settled(a.create_schema())
    await settled(b.create_schema())

    first = await published(a, "of a", condition=stream_is_empty())
    await published(b, "of b", condition=stream_is_empty())
    again = await published(a, "of a again", condition=position_is(0))
    with pytest.raises(UnmetWriteConditionError):
        await published(b, "refused", condition=position_is(1))

    assert (first.sequence_number, again.sequence_number) == (1, 2)
    assert await names_in(a) == ["of a", "of a again"]
    assert await names_in(b) == ["of b"]
    assert [event.name for event in await settled(b.stream(category="orders", stream="1").read())] == ["of b"]
    assert (await settled(a.log().latest())).name == "of a again"
    assert (await settled(a.watermark())).sequence_number == 2
    assert (await settled(b.watermark())).sequence_number == 1
    assert [category.category for category in await collected(b.categories())] == ["orders"]
    assert host.ground.names() == []


@each_postgres_driver
async def test_tenant_that_is_cleared_or_dropped_leaves_the_others_alone(host: Host, tenants: dict[str, Any]) -> None:
    a, b = (host.store_on(engine) for engine in tenants.values())
    for store in (a, b):
        await settled(store.create_schema())
        await published(store, "event")
    await host.publish(host.store)

    await settled(clear(tenants["tenant_a"]))
    assert await names_in(a) == []
    assert (await published(a, "first again")).sequence_number == 1
    await settled(a.drop_schema())

    assert await names_in(b) == ["event"]
    assert host.ground.names() == ["mine"]
    await settled(a.create_schema())
    assert await names_in(a) == []


@each_postgres_driver
async def test_tenants_do_not_wait_for_each_other(host: Host, tenants: dict[str, Any]) -> None:
    a, b = (host.store_on(engine) for engine in tenants.values())
    for store in (a, b):
        await settled(store.create_schema())

    async with entered(host.session(tenants["tenant_a"])) as session:
        await published(host.store.within(session), "open")
        async with entered(host.session(tenants["tenant b"])) as other:
            await host.execute(other, f"SET LOCAL lock_timeout = '{PATIENCE_S:.0f}s'")
            await published(host.store.within(other), "at the same time", condition=stream_is_empty())
            await settled(other.commit())
        assert await names_in(b) == ["at the same time"]
        watermark = await settled(a.watermark())
        assert watermark.sequence_number == 0
        assert watermark.holder is not None
        await settled(session.commit())

    assert await names_in(a) == ["open"]
    assert await names_in(b) == ["at the same time"]


@each_postgres_driver
async def test_session_of_a_tenant_publishes_and_reads_in_its_schema(host: Host, tenants: dict[str, Any]) -> None:
    for engine in tenants.values():
        await settled(host.store_on(engine).create_schema())

    for tenant, engine in tenants.items():
        async with entered(host.session(engine)) as session:
            store = host.store.within(session)
            await published(store, f"of {tenant}")
            await published(store, f"of {tenant} too", condition=stream_exists())
            assert await names_in(store) == [f"of {tenant}", f"of {tenant} too"]
            await settled(session.commit())

    for tenant, engine in tenants.items():
        assert await names_in(host.store_on(engine)) == [f"of {tenant}", f"of {tenant} too"]


@each_driver()
async def test_two_prefixes_in_one_transaction_of_the_host_are_two_stores(host: Host) -> None:
    schema = EventStoreSchema(prefix="audit_")
    audit = host.store_on(host.engine, schema=schema)
    await settled(audit.create_schema())
    try:
        async with host.caller() as (caller, store):
            within_audit = audit.within(caller)
            await published(store, "order")
            await published(within_audit, "audit", condition=stream_is_empty())
            with pytest.raises(UnmetWriteConditionError):
                await published(within_audit, "refused", condition=position_is(5))
            await published(within_audit, "audit too", condition=position_is(0))
            await settled(caller.commit())
        async with host.caller() as (caller, store):
            await published(store, "rolled back")
            await published(audit.within(caller), "rolled back")
            await settled(caller.rollback())

        assert host.ground.names() == ["order"]
        assert await names_in(audit) == ["audit", "audit too"]
    finally:
        await settled(audit.drop_schema())


@each_postgres_driver
async def test_two_schemas_in_one_transaction_of_the_host_are_two_stores(host: Host, tenants: dict[str, Any]) -> None:
    audit = host.store_on(host.engine, schema=EventStoreSchema(schema="tenant b"))
    await settled(audit.create_schema())

    async with host.caller() as (caller, store):
        await published(store, "order")
        await published(audit.within(caller), "audit", condition=stream_is_empty())
        await settled(caller.commit())

    assert host.ground.names() == ["order"]
    assert await names_in(audit) == ["audit"]


@each_postgres_driver
async def test_processes_that_create_the_schema_at_once_do_not_collide(host: Host, tenants: dict[str, Any]) -> None:
    """Each on a connection of its own, as processes that start together have."""
    url = host.ground.url("postgresql+psycopg")

    def create(_: int) -> None:
        engine = create_engine(url, execution_options={"schema_translate_map": {None: "tenant_a"}})
        SyncEventStore(engine).create_schema()
        engine.dispose()

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(create, range(6)))

    store = host.store_on(tenants["tenant_a"])
    await published(store, "event")
    assert await names_in(store) == ["event"]
