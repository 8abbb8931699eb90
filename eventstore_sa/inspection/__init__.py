"""Looking at an event store as a whole: its categories and streams, what belongs together, how far it can be read, its size.

It only reads, and works with the privileges of a reader (docs/roles.md). For the command line, browsers and monitoring.
"""

from eventstore_sa.contracts.inspection import (
    CategoryCount,
    CategorySummary,
    Growth,
    HeldBack,
    InspectionStorage,
    Statistics,
    StreamSummary,
    TableSize,
    TraceSlice,
    WatermarkReport,
)
from eventstore_sa.inspection.inspecting import Inspection, SyncInspection
from eventstore_sa.persistence.inspection.health import Finding, Severity, diagnose
from eventstore_sa.persistence.inspection.indexes import inspection_index

__all__ = [
    "CategoryCount",
    "CategorySummary",
    "Finding",
    "Growth",
    "HeldBack",
    "Inspection",
    "InspectionStorage",
    "Severity",
    "Statistics",
    "StreamSummary",
    "SyncInspection",
    "TableSize",
    "TraceSlice",
    "WatermarkReport",
    "diagnose",
    "inspection_index",
]
