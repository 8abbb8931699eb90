"""Moving events between stores: exports as lines of JSON, imports of these, and of the tables of other event stores.

Events keep their ids, times, positions and order; they get new numbers unless those are to be kept.
"""

from eventstore_sa.transfer.exporting import ExportProgress, export_events
from eventstore_sa.transfer.foreign import FOREIGN_STORES, ForeignStore, foreign_events
from eventstore_sa.transfer.importing import ImportResult, import_events
from eventstore_sa.transfer.lines import ExportHeader, ExportTrailer, read_export, verify_export

__all__ = [
    "FOREIGN_STORES",
    "ExportHeader",
    "ExportProgress",
    "ExportTrailer",
    "ForeignStore",
    "ImportResult",
    "export_events",
    "foreign_events",
    "import_events",
    "read_export",
    "verify_export",
]
