"""What users of `logicblocks.event.store` import: it is there under its path, or the error says what takes its place."""

from __future__ import annotations

import importlib
import inspect
import re
from typing import Any

import pytest

import eventstore_sa.processing
from eventstore_sa.testing.cases.tables import in_turn
from tests.project import ROOT, run_python

REPLACED = [
    ("eventstore_sa.store", "PostgresEventStorageAdapter", "SQLAlchemyEventStorageAdapter"),
    ("eventstore_sa.store.adapters", "PostgresEventStorageAdapter", "SQLAlchemyEventStorageAdapter"),
    ("eventstore_sa.store.adapters", "PostgresQuerySettings", "EventStoreSchema"),
    ("eventstore_sa.store.adapters", "AnyEventSerialisationGuarantee", "EventSerialisationGuarantee"),
    ("eventstore_sa.projection", "PostgresProjectionStorageAdapter", "SQLAlchemyProjectionStorageAdapter"),
    ("eventstore_sa.projection.adapters", "PostgresProjectionStorageAdapter", "SQLAlchemyProjectionStorageAdapter"),
    ("eventstore_sa.projection.store", "PostgresProjectionStorageAdapter", "SQLAlchemyProjectionStorageAdapter"),
    ("eventstore_sa.projection.store.adapters", "PostgresProjectionStorageAdapter", "ProjectionStore"),
    ("eventstore_sa.query", "Query", "Lookup"),
    ("eventstore_sa.query", "Clause", "FilterExpression"),
    ("eventstore_sa.types", "Converter", "a function"),
    ("eventstore_sa.types.event", "serialise_stored_event", "serialise"),
    ("eventstore_sa.processing", "EventBroker", "eventstore_sa.subscriptions"),
    ("eventstore_sa.processing", "ProjectionEventProcessor", "Subscription"),
    ("eventstore_sa.processing", "error_handler_type_mappings", "FailurePolicy"),
    ("eventstore_sa.processing", "PostgresLockManager", "leased"),
]


@in_turn("module, name, instead", REPLACED)
def test_importing_a_replaced_name_says_what_to_use(module: str, name: str, instead: str) -> None:
    with pytest.raises(ImportError, match=re.escape(f"{module} has no {name}, use ")) as caught:
        exec(f"from {module} import {name}", {})

    assert instead in str(caught.value)
    assert "docs/from-logicblocks.md" in str(caught.value)


def test_a_name_that_never_was_is_an_ordinary_error() -> None:
    with pytest.raises(ImportError, match="cannot import name 'Nonsense'"):
        exec("from eventstore_sa.store import Nonsense", {})
    assert not hasattr(importlib.import_module("eventstore_sa.types"), "Nonsense")


def test_recommended_names_of_subscriptions_exist() -> None:
    subscriptions: Any = importlib.import_module("eventstore_sa.subscriptions")
    source = inspect.getsource(eventstore_sa.processing)

    assert {name for name in ("Subscription", "run", "FailurePolicy") if name in source} <= set(subscriptions.__all__)
    assert hasattr(subscriptions.Subscription, "status")


def test_the_page_is_there() -> None:
    assert (ROOT / "docs" / "from-logicblocks.md").is_file()


@pytest.mark.parametrize("first", ["eventstore_sa.types.event", "eventstore_sa.types", "eventstore_sa"])
def test_the_module_and_the_decorator_of_the_same_name_do_not_get_in_each_others_way(first: str) -> None:
    program = (
        f"import {first}\n"
        "from eventstore_sa.types.event import NewEvent as there\n"
        "from eventstore_sa.types import NewEvent, event\n"
        "import eventstore_sa\n"
        "assert there is NewEvent\n"
        "assert event is eventstore_sa.event is eventstore_sa.types.event, event\n"
        "assert callable(event)\n"
    )
    outcome = run_python("-c", program)
    assert outcome.returncode == 0, outcome.stderr
