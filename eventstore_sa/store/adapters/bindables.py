"""What a store may be bound to: engines, session factories, URLs, and sessions and connections of the caller.

Here they become a `Bind` of `persistence/transactions/binds.py`, or an error that says what to use instead. There is no I/O:
engines connect when they are first used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias, TypeVar

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

__all__ = ["AsyncBindable", "SyncBindable", "async_bind", "is_url", "sync_bind"]

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


def is_url(bindable: object) -> bool:
    """Tell whether the engine is made here, and so belongs to the store."""
    return isinstance(bindable, URL | str)


def async_bind(bindable: object, schema: EventStoreSchema) -> Bind:
    """Resolve the bind of an asyncio store.

    Raises:
        ConfigurationError: If it is not a bind for asyncio, or its driver is not installed.
    """
    match bindable:
        case AsyncEngine():
            return _engine(bindable.sync_engine, blocking=False)
        case async_sessionmaker():
            return FactoryBind(bindable, schema, blocking=False)
        case AsyncConnection():
            return ConnectionBind(bindable)
        case AsyncSession() | async_scoped_session():
            return SessionBind(bindable, schema)
        case URL() | str():
            return _engine(_create(bindable, create_async_engine).sync_engine, blocking=False, owned=True)
        case EngineBind() | FactoryBind() | ConnectionBind() | SessionBind():
            return bindable
        case Engine() | sessionmaker() | Connection() | Session() | scoped_session():
            raise ConfigurationError(
                f"an EventStore needs asyncio, but {type(bindable).__name__} is synchronous: use its asyncio "
                "counterpart (create_async_engine, async_sessionmaker, AsyncSession), or use SyncEventStore"
            )
        case _:
            raise _no_bind(bindable, "an AsyncEngine, async_sessionmaker, AsyncConnection, AsyncSession or URL")


def sync_bind(bindable: object, schema: EventStoreSchema) -> Bind:
    """Resolve the bind of a synchronous store.

    Raises:
        ConfigurationError: If it is not a synchronous bind, or its driver is not installed.
    """
    match bindable:
        case Engine():
            return _engine(bindable, blocking=True)
        case sessionmaker():
            return FactoryBind(bindable, schema, blocking=True)
        case Connection():
            return ConnectionBind(bindable)
        case Session() | scoped_session():
            return SessionBind(bindable, schema)
        case URL() | str():
            return _engine(_create(bindable, create_engine), blocking=True, owned=True)
        case EngineBind() | FactoryBind() | ConnectionBind() | SessionBind():
            return bindable
        case AsyncEngine() | async_sessionmaker() | AsyncConnection() | AsyncSession() | async_scoped_session():
            raise ConfigurationError(
                f"a SyncEventStore is synchronous, but {type(bindable).__name__} needs asyncio: use its "
                "synchronous counterpart (create_engine, sessionmaker, Session), or use EventStore"
            )
        case _:
            raise _no_bind(bindable, "an Engine, sessionmaker, Connection, Session or URL")


def _engine(engine: Engine, *, blocking: bool, owned: bool = False) -> Bind:
    bind = EngineBind(engine, blocking=blocking, owned=owned)
    if blocking and engine.dialect.is_async:
        raise ConfigurationError(
            f"the driver {engine.dialect.driver} works only with asyncio: use EventStore, or a synchronous driver "
            "(postgresql+psycopg://, sqlite://)"
        )
    return bind


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
            "SQLAlchemy does not recognise this database URL: write it as postgresql+asyncpg://user@host/database or "
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
            f"the database driver {module} is not installed, and this library is not tested with it: use "
            f"{_DRIVERS[backend]}"
        )
    message = f"the database driver {module} is not installed: pip install 'eventstore-sa[{extra}]'"
    if "+" not in url.drivername:  # SQLAlchemy chose it
        message += f", or name the driver that you have in the URL: {_DRIVERS[url.get_backend_name()]}"
    return ConfigurationError(message)


def _no_bind(bindable: object, kinds: str) -> ConfigurationError:
    return ConfigurationError(f"a store is bound to {kinds}; got {type(bindable).__name__}")
