"""The pytest plugin, in suites of users: what its fixtures give, in which modes, and what it costs where it is not used."""

from __future__ import annotations

import os

import aiosqlite  # noqa: F401 - a suite in this process forgets what it has imported, and asyncpg cannot be imported twice
import asyncpg  # noqa: F401
import psycopg  # noqa: F401
import pytest
from sqlalchemy import URL, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from eventstore_sa import EventStore, EventStoreSchema, NewEvent
from eventstore_sa.errors import ConfigurationError, LockTimeoutError
from eventstore_sa.testing import assert_published, isolation
from eventstore_sa.testing.isolation import prepared_postgres
from eventstore_sa.testing.postgres import URL_VARIABLE, PostgresServer
from tests.project import ROOT, run_python

INI = "[pytest]\nfilterwarnings =\n    error\n"

EMPTY_BEFORE_EACH = """
    import pytest
    from eventstore_sa import NewEvent, SyncEventStore

    STORES = ["eventstore_sa_memory_sync", "eventstore_sa_sqlite_sync", "eventstore_sa_postgres_sync"]

    @pytest.mark.parametrize("attempt", [1, 2])
    @pytest.mark.parametrize("name", STORES)
    def test_store(name, attempt, request):
        store = request.getfixturevalue(name)
        assert isinstance(store, SyncEventStore)
        assert store.log().read() == []
        (stored,) = store.stream(category="orders", stream="42").publish(events=[NewEvent(name="placed", payload=1)])
        assert (stored.position, stored.sequence_number) == (0, 1)
"""

ASYNC_TEST = """
    import pytest
    from eventstore_sa import EventStore, NewEvent

    STORES = ["eventstore_sa_memory", "eventstore_sa_sqlite", "eventstore_sa_postgres"]

    @MARK
    @pytest.mark.parametrize("attempt", [1, 2])
    @pytest.mark.parametrize("name", STORES)
    async def test_store(name, attempt, request):
        store = request.getfixturevalue(name)
        assert isinstance(store, EventStore)
        assert await store.log().read() == []
        await store.stream(category="orders", stream="42").publish(events=[NewEvent(name="placed", payload=1)])
        assert len(await store.log().read()) == 1
"""

OWN_TABLES = """
    import pytest
    from sqlalchemy import ForeignKey, select
    from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
    from eventstore_sa import EventStoreSchema, NewEvent, RecordsEvents
    from eventstore_sa.testing import assert_published

    class Base(DeclarativeBase):
        pass

    class Order(RecordsEvents, Base):
        __tablename__ = "orders"
        id: Mapped[int] = mapped_column(primary_key=True)
        before: Mapped[int | None] = mapped_column(ForeignKey("orders.id"))

    SCHEMA = EventStoreSchema(Base.metadata, prefix="shop_")

    class Receipt(Base):
        __tablename__ = "receipts"
        event: Mapped[int] = mapped_column(ForeignKey(SCHEMA.events.c.sequence_number), primary_key=True)

    @pytest.fixture(scope="session")
    def eventstore_sa_schema():
        return SCHEMA

    @pytest.mark.parametrize("attempt", [1, 2])
    @pytest.mark.parametrize("database", ["sqlite", "postgres"])
    def test_rows(attempt, database, request):
        engine = request.getfixturevalue(f"eventstore_sa_{database}_engine_sync")
        store = request.getfixturevalue(f"eventstore_sa_{database}_sync")
        with Session(engine) as session, Session(engine) as other:
            assert session.scalars(select(Order)).all() == []
            session.rollback()
            order = Order()
            session.add(order)
            order.record(NewEvent(name="placed", payload=None))
            session.commit()
            assert order.id == 1
            session.rollback()
            assert other.get(Order, 1) is not None
            other.add(Receipt(event=1))
            other.commit()
        assert_published(store, "placed", only=True)
"""

BOTH_FACES = """
    from eventstore_sa import NewEvent

    async def test_one_database(eventstore_sa_postgres, eventstore_sa_postgres_sync,
                                eventstore_sa_sqlite, eventstore_sa_sqlite_sync,
                                eventstore_sa_memory, eventstore_sa_memory_sync):
        for store, sync_store in [
            (eventstore_sa_postgres, eventstore_sa_postgres_sync),
            (eventstore_sa_sqlite, eventstore_sa_sqlite_sync),
            (eventstore_sa_memory, eventstore_sa_memory_sync),
        ]:
            await store.stream(category="orders", stream="42").publish(events=[NewEvent(name="placed", payload=1)])
            assert len(sync_store.log().read()) == 1
"""

FROZEN = """
    from eventstore_sa import NewEvent

    def test_time(eventstore_sa_clock):
        event = NewEvent(name="placed", payload=None)
        assert event.observed_at == eventstore_sa_clock.now()
        assert event.id.int & 0xFFFF == 1
"""

FAILING = """
    from eventstore_sa import NewEvent, SyncEventStore
    from eventstore_sa.testing import FakeSession, assert_published, given, matching, published_in, staged_in

    PLACED = NewEvent(name="placed", payload={"total": 12})

    def test_scenario():
        given([PLACED]).when(lambda event: event.payload).then([{"total": 13}])

    def test_published(eventstore_sa_memory_sync):
        eventstore_sa_memory_sync.stream(category="orders", stream="42").publish(events=[PLACED])
        assert_published(eventstore_sa_memory_sync, matching("placed", payload={"total": 13}))

    async def test_published_async(eventstore_sa_memory):
        await assert_published(eventstore_sa_memory, "placed")

    def test_staged():
        session = FakeSession()
        store = SyncEventStore("sqlite://").within(session)
        store.stream(category="orders", stream="42").stage(events=[PLACED])
        assert_published(staged_in(session), "paid")

    def test_nothing(eventstore_sa_clock):
        assert_published([PLACED], only=True)
"""


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """The suite of somebody who has installed the plugin."""
    pytester.makeini(f"{INI}asyncio_default_fixture_loop_scope = function\n")
    installed = pytester.mkdir("installed")
    metadata = installed / "eventstore_sa_plugin-0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: eventstore-sa-plugin\nVersion: 0\n")
    (metadata / "entry_points.txt").write_text("[pytest11]\neventstore_sa = pytest_eventstore_sa\n")
    for folder in (ROOT, installed):
        pytester.syspathinsert(folder)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (installed, ROOT))))
    return pytester


@pytest.fixture
def server(postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have suites use the server of this one: to start another takes a second."""
    monkeypatch.setenv(URL_VARIABLE, postgres_server.url.render_as_string(hide_password=False))


def test_the_entry_point_is_that_of_the_package() -> None:
    declared = '[project.entry-points.pytest11]\neventstore_sa = "pytest_eventstore_sa"\n'

    assert declared in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


@pytest.mark.usefixtures("server")
def test_each_test_has_an_empty_store(suite: pytest.Pytester) -> None:
    suite.makeini(INI)
    suite.makepyfile(EMPTY_BEFORE_EACH)

    suite.runpytest("-p", "no:asyncio", "-p", "no:anyio").assert_outcomes(passed=6)


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(
    ("mode", "mark", "options"),
    [
        ("strict", "pytest.mark.asyncio", ["-p", "no:anyio"]),
        ("auto", "pytest.mark.filterwarnings('error')", []),
        ("strict", "pytest.mark.anyio", ["-p", "no:asyncio"]),
    ],
    ids=["strict", "auto", "anyio"],
)
def test_asyncio_stores_work_in_every_mode(suite: pytest.Pytester, mode: str, mark: str, options: list[str]) -> None:
    if "no:asyncio" in options:
        suite.makeini(INI)
        suite.makeconftest("import pytest\n@pytest.fixture\ndef anyio_backend():\n    return 'asyncio'\n")
    else:
        options = [*options, f"--asyncio-mode={mode}"]
    suite.makepyfile(ASYNC_TEST.replace("MARK", mark))

    suite.runpytest(*options).assert_outcomes(passed=6)


@pytest.mark.usefixtures("server")
def test_tables_of_the_application_are_created_and_emptied_too(suite: pytest.Pytester) -> None:
    suite.makepyfile(OWN_TABLES)

    suite.runpytest().assert_outcomes(passed=4)


@pytest.mark.usefixtures("server")
def test_both_faces_see_the_same_events(suite: pytest.Pytester) -> None:
    suite.makepyfile(BOTH_FACES)

    suite.runpytest("--asyncio-mode=auto").assert_outcomes(passed=1)


@pytest.mark.long
@pytest.mark.usefixtures("server")
def test_parallel_workers_do_not_meet(suite: pytest.Pytester) -> None:
    suite.makepyfile(EMPTY_BEFORE_EACH)

    suite.runpytest_subprocess("-n", "2").assert_outcomes(passed=6)


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)


SCHEMA = EventStoreSchema(Base.metadata)


def test_a_session_that_a_test_has_left_open_is_reported(postgres_server: PostgresServer) -> None:
    with prepared_postgres(postgres_server, SCHEMA) as prepared, Session(prepared.engine) as left_open:
        for table, message in (
            ("orders", "did an earlier test leave a session open"),
            ("es_events", "in use by process"),
        ):
            left_open.execute(text(f"SELECT * FROM {table}"))
            with pytest.raises(LockTimeoutError, match=message):
                prepared.empty(timeout_s=0.05)
            left_open.rollback()
        prepared.empty()


async def test_one_driver_for_asyncio_is_enough(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolation, "_SYNC_DRIVERS", ())

    with prepared_postgres(postgres_server, SCHEMA) as prepared:
        store = EventStore(prepared.async_engine, schema=SCHEMA)
        await store.stream(category="orders", stream="42").publish(events=[NewEvent(name="placed", payload=None)])
        prepared.empty()
        await assert_published(store, only=True)


def test_drivers_that_are_missing_are_named(postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with prepared_postgres(postgres_server, SCHEMA) as prepared:
        prepared.close()
        del prepared.engine
        monkeypatch.setattr(isolation, "find_spec", lambda _: None)
        with pytest.raises(ConfigurationError, match=r"pip install 'eventstore-sa\[psycopg\]' or .*psycopg2"):
            _ = prepared.engine
        with pytest.raises(ConfigurationError, match=r"pip install 'eventstore-sa\[asyncpg\]' or .*psycopg"):
            _ = prepared.async_engine
        with pytest.raises(ConfigurationError, match=r"pip install 'eventstore-sa\[aiosqlite\]'"):
            isolation.async_sqlite_engine(URL.create("sqlite"))


def test_the_clock_of_a_test_stands_still(suite: pytest.Pytester) -> None:
    suite.makepyfile(FROZEN)

    suite.runpytest().assert_outcomes(passed=1)


def test_failing_tests_say_what_is_different(suite: pytest.Pytester) -> None:
    suite.makepyfile(FAILING)

    result = suite.runpytest("--asyncio-mode=auto")

    result.assert_outcomes(failed=5)
    result.stdout.fnmatch_lines(
        [
            '>*given([[]PLACED]).when(lambda event: event.payload).then([[]{"total": 13}])',
            "E*AssertionError: the result is not the expected one",
            'E*-    "total": 13',
            'E*+    "total": 12',
            '>*assert_published(eventstore_sa_memory_sync, matching("placed", payload={"total": 13}))',
            "E*AssertionError: matching('placed', payload={'total': 13}) was not published",
            "E*event 1: payload.total is 12, expected 13",
            '>*await assert_published(eventstore_sa_memory, "placed")',
            "E*the events are:",
            "E*none",
            '>*assert_published(staged_in(session), "paid")',
            "E*AssertionError: matching('paid') was not published",
            'E*1. placed in orders/42: {"total": 12}',
            ">*assert_published([[]PLACED], only=True)",
            "E*AssertionError: events that are not expected: 1",
        ]
    )


def test_the_plugin_can_be_switched_off(suite: pytest.Pytester) -> None:
    suite.makepyfile(FROZEN)

    result = suite.runpytest("-p", "no:eventstore_sa")

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*fixture 'eventstore_sa_clock' not found*"])


def test_all_names_of_fixtures_have_the_prefix(suite: pytest.Pytester) -> None:
    result = suite.runpytest("--fixtures", "-v")

    from_plugin = [line.split()[0] for line in result.outlines if "pytest_eventstore_sa.py:" in line]
    assert len(from_plugin) > 10
    assert [name for name in from_plugin if not name.startswith(("eventstore_sa_", "_eventstore_sa_"))] == []


def test_the_plugin_imports_nothing_but_pytest() -> None:
    program = (
        "import pytest, sys; before = set(sys.modules); import pytest_eventstore_sa; "
        "print(sorted(set(sys.modules) - before))"
    )

    outcome = run_python("-c", program)

    assert (outcome.stdout, outcome.stderr) == ("['pytest_eventstore_sa']\n", "")
