"""What a store may be bound to: engines, session factories, URLs, and sessions and connections of the caller's.

Here the bind that a user gives becomes a `Bind` of `persistence/transactions/binds.py`, or an error that says what to
give instead.
No I/O happens here: engines connect when they are first used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

from sqlalchemy import URL, AsyncAdaptedQueuePool, Connection, Engine, QueuePool, create_engine, make_url
from sqlalchemy.exc import ArgumentError, InvalidRequestError, NoSuchModuleError
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from eventstore_sa.errors import ConfigurationError
from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.persistence.transactions.binds import Bind, ConnectionBind, EngineBind, FactoryBind, SessionBind
from eventstore_sa.persistence.transactions.databases import configure_sqlite, unknown_database

__all__ = ["AsyncBindable", "BoundTo", "SyncBindable", "async_bind", "sync_bind"]

AsyncBindable: TypeAlias = (
    AsyncEngine | async_sessionmaker[Any] | AsyncConnection | AsyncSession | async_scoped_session[Any] | URL | str
)
SyncBindable: TypeAlias = Engine | sessionmaker[Any] | Connection | Session | scoped_session[Any] | URL | str

_DRIVERS: Final = {
    "postgresql": "postgresql+asyncpg://, postgresql+psycopg:// or postgresql+psycopg2://",
    "sqlite": "sqlite:// or sqlite+aiosqlite://",
    "mariadb": "mariadb+pymysql:// or mariadb+asyncmy://",
    "mysql": "mariadb+pymysql:// or mariadb+asyncmy://",
}

E = TypeVar("E", Engine, AsyncEngine)

_EXTRAS: Final = {
    "asyncpg": "asyncpg",
    "psycopg": "psycopg",
    "psycopg2": "psycopg2",
    "aiosqlite": "aiosqlite",
    "asyncmy": "mariadb",
    "pymysql": "mariadb",
}


class BoundTo(NamedTuple):
    """A bind, with the engine behind it where there is one.

    Attributes:
        bind: Where connections come from.
        owned: The engine that belongs to the store, because it was made from a URL.
    """

    bind: Bind
    owned: Engine | AsyncEngine | None = None


def async_bind(bindable: object, schema: EventStoreSchema) -> BoundTo:
    """Resolve the bind of an asyncio store.

    Raises:
        ConfigurationError: It is not a bind for asyncio, or its driver is not installed.
    """
    match bindable:
        case AsyncEngine():
            return _engine(bindable.sync_engine, blocking=False)
        case async_sessionmaker():
            return BoundTo(FactoryBind(bindable, schema, blocking=False))
        case AsyncConnection():
            return BoundTo(ConnectionBind(bindable))
        case AsyncSession() | async_scoped_session():
            return BoundTo(SessionBind(bindable, schema))
        case URL() | str():
            engine = _create(bindable, create_async_engine)
            return _engine(engine.sync_engine, blocking=False, owned=engine)
        case Engine() | sessionmaker() | Connection() | Session() | scoped_session():
            raise ConfigurationError(
                f"an EventStore is used with asyncio, and {type(bindable).__name__} is synchronous: give it the asyncio "
                "one (create_async_engine, async_sessionmaker, AsyncSession), or use SyncEventStore"
            )
        case _:
            raise _no_bind(bindable, "AsyncEngine, async_sessionmaker, AsyncConnection, AsyncSession or URL")


def sync_bind(bindable: object, schema: EventStoreSchema) -> BoundTo:
    """Resolve the bind of a synchronous store.

    Raises:
        ConfigurationError: It is no synchronous bind, or its driver is not installed.
    """
    match bindable:
        case Engine():
            return _engine(bindable, blocking=True)
        case sessionmaker():
            return BoundTo(FactoryBind(bindable, schema, blocking=True))
        case Connection():
            return BoundTo(ConnectionBind(bindable))
        case Session() | scoped_session():
            return BoundTo(SessionBind(bindable, schema))
        case URL() | str():
            engine = _create(bindable, create_engine)
            return _engine(engine, blocking=True, owned=engine)
        case AsyncEngine() | async_sessionmaker() | AsyncConnection() | AsyncSession() | async_scoped_session():
            raise ConfigurationError(
                f"a SyncEventStore is used without asyncio, and {type(bindable).__name__} needs it: give it the "
                "synchronous one (create_engine, sessionmaker, Session), or use EventStore"
            )
        case _:
            raise _no_bind(bindable, "Engine, sessionmaker, Connection, Session or URL")


def _engine(engine: Engine, *, blocking: bool, owned: Engine | AsyncEngine | None = None) -> BoundTo:
    bind = EngineBind(engine, blocking=blocking, owned=owned is not None)
    if blocking and engine.dialect.is_async:
        raise ConfigurationError(
            f"the driver {engine.dialect.driver} works with asyncio only: use EventStore, or a synchronous driver "
            "(postgresql+psycopg://, sqlite://)"
        )
    return BoundTo(bind, owned)


def _create(url: URL | str, create: Callable[..., E]) -> E:
    options: dict[str, Any] = {}
    try:
        parsed = make_url(url)
        in_memory = parsed.database in (None, "", ":memory:") or parsed.query.get("mode") == "memory"
        if parsed.get_backend_name() == "sqlite" and in_memory:
            # One connection is the database: everybody waits for it in turn.
            options = {"pool_size": 1, "max_overflow": 0}
            if parsed.get_dialect().is_async:
                options["poolclass"] = AsyncAdaptedQueuePool
            else:
                options |= {"poolclass": QueuePool, "connect_args": {"check_same_thread": False}}
        engine = create(parsed, **options)
    except ModuleNotFoundError as error:
        raise _missing_driver(error.name or "driver", make_url(url)) from error
    except InvalidRequestError as error:
        raise ConfigurationError(
            f"the URL's driver does not work with asyncio ({error}): use postgresql+asyncpg://, postgresql+psycopg:// or "
            "sqlite+aiosqlite://, or a SyncEventStore"
        ) from error
    except (ArgumentError, NoSuchModuleError) as error:
        raise ConfigurationError(
            "this is no database URL that SQLAlchemy knows: write it as postgresql+asyncpg://user@host/database or "
            "sqlite+aiosqlite:///file.db"
        ) from error
    configure_sqlite(engine)
    return engine


def _missing_driver(module: str, url: URL) -> ConfigurationError:
    extra = _EXTRAS.get(module)
    if extra is None:
        backend = url.get_backend_name()
        if backend not in _DRIVERS:
            return unknown_database(backend)
        return ConfigurationError(
            f"the database driver {module} is not installed, and is none that this library is tested with: use "
            f"{_DRIVERS[backend]}"
        )
    return ConfigurationError(f"the database driver {module} is not installed: pip install 'eventstore-sa[{extra}]'")


def _no_bind(bindable: object, kinds: str) -> ConfigurationError:
    return ConfigurationError(f"a store is bound to an {kinds}; got a {type(bindable).__name__}")
