"""The cases that every storage adapter passes: subclass those for events, projections or snapshots, and run pytest.

Each case is a sentence about the contract in the adapters' `base` modules, written once and run over both kinds of adapters.
They need pytest and pytest-asyncio (the extra `testing-adapters`) and nothing of the adapter but its contract.
"""

from __future__ import annotations

try:
    import pytest
    import pytest_asyncio as _pytest_asyncio
except ImportError as _error:
    raise ImportError(
        "the adapter cases run on pytest and pytest-asyncio: pip install 'eventstore-sa[testing-adapters]'"
    ) from _error

# Before they are imported, so that a failed assertion shows its values in a third party's suite too.
for _group in (
    "concurrency",
    "conditions",
    "constraints",
    "fidelity",
    "listing",
    "names",
    "partitions",
    "projection_converters",
    "projection_filters",
    "projection_order",
    "projection_saving",
    "projection_setting",
    "publishing",
    "reading",
    "refusals",
    "repetition",
    "snapshot_saving",
    "tags",
    "volume",
):
    pytest.register_assert_rewrite(f"{__name__}.{_group}")

from eventstore_sa.testing.cases.event_storage import EventStorageAdapterCases, SyncEventStorageAdapterCases  # noqa: E402
from eventstore_sa.testing.cases.projection_converters import ProjectionConverterCases  # noqa: E402
from eventstore_sa.testing.cases.projection_storage import (  # noqa: E402
    ProjectionStorageAdapterCases,
    SyncProjectionStorageAdapterCases,
)
from eventstore_sa.testing.cases.snapshot_storage import (  # noqa: E402
    SnapshotStorageAdapterCases,
    SyncSnapshotStorageAdapterCases,
)

__all__ = [
    "EventStorageAdapterCases",
    "ProjectionConverterCases",
    "ProjectionStorageAdapterCases",
    "SnapshotStorageAdapterCases",
    "SyncEventStorageAdapterCases",
    "SyncProjectionStorageAdapterCases",
    "SyncSnapshotStorageAdapterCases",
]

del _group, _pytest_asyncio
