"""Reading errors of drivers: which unique constraint was violated, by the names that each database gives it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from sqlalchemy.exc import DBAPIError, IntegrityError

from eventstore_sa.errors import ConfigurationError
from eventstore_sa.persistence.events.dialects import constraints_of_events
from eventstore_sa.persistence.transactions.databases import database_named
from eventstore_sa.persistence.transactions.failures import FailureKind


def error_of(driver_error: Exception) -> DBAPIError:
    return IntegrityError("INSERT", None, driver_error)


def sqlite_error(said: str) -> Exception:
    return Exception(said)


def mariadb_error(number: int, said: str) -> Exception:
    return Exception(number, said)


def postgresql_error(sqlstate: str, constraint: str) -> Exception:
    error = Exception("duplicate key value violates unique constraint")
    error.sqlstate, error.constraint_name = sqlstate, constraint  # type: ignore[attr-defined]
    error.diag = SimpleNamespace(message_primary=None, constraint_name=None)  # type: ignore[attr-defined]
    return error


ID, POSITION, SEQUENCE, OTHER = (
    FailureKind.DUPLICATE_ID,
    FailureKind.POSITION_TAKEN,
    FailureKind.SEQUENCE_BEHIND,
    FailureKind.OTHER,
)


@pytest.mark.parametrize("prefix", ["es_", "", "it's ", 'a"b.', "for key '"])
def test_constraints_of_the_table_of_events_are_told_from_others(prefix: str) -> None:
    events, violated = f"{prefix}events", "UNIQUE constraint failed"
    expected = [
        ("postgresql", postgresql_error("23505", f"{events}_id_key"), ID),
        ("postgresql", postgresql_error("23505", f"{events}_position_key"), POSITION),
        ("postgresql", postgresql_error("23505", f"{events}_pkey"), SEQUENCE),
        ("postgresql", postgresql_error("23505", "other_events_id_key"), OTHER),
        ("postgresql", postgresql_error("23514", f"{events}_id_key"), OTHER),
        ("sqlite", sqlite_error(f"{violated}: {events}.id"), ID),
        ("sqlite", sqlite_error(f"{violated}: {events}.category, {events}.stream, {events}.position"), POSITION),
        ("sqlite", sqlite_error(f"{violated}: other_events.id"), OTHER),
        ("sqlite", sqlite_error(f"CHECK constraint failed: {events}.id"), OTHER),
        ("mariadb", mariadb_error(1062, f"Duplicate entry 'x' for key '{events}_id_key'"), ID),
        ("mysql", mariadb_error(1062, f"Duplicate entry 'x-0' for key '{events}_position_key'"), POSITION),
        ("mariadb", mariadb_error(1062, "Duplicate entry 'x' for key 'PRIMARY'"), OTHER),
        ("mariadb", mariadb_error(1452, f"a foreign key for key '{events}_id_key'"), OTHER),
    ]

    for name, error, kind in expected:
        failure = database_named(name).failure_of(error_of(error)).refined(constraints_of_events(prefix))
        assert failure.kind is kind, (name, error)


def test_an_unsupported_database_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="events cannot be kept in oracle"):
        database_named("oracle")
