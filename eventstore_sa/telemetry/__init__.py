"""OpenTelemetry: spans and metrics of publishes, reads, projections and subscriptions. The extra is `opentelemetry`.

Nothing in the rest of the library knows of this package. `EventStoreInstrumentor().instrument()` wraps the functions that
are worth a span, so a process that does not call it pays nothing.
"""

try:
    from eventstore_sa.telemetry.instrumentor import EventStoreInstrumentor
    from eventstore_sa.telemetry.watching import rebuild_gauge, watch, watch_sync
except ImportError as _error:
    raise ImportError(
        "telemetry needs OpenTelemetry: install it with the extra 'eventstore-sa[opentelemetry]'"
    ) from _error

__all__ = ["EventStoreInstrumentor", "rebuild_gauge", "watch", "watch_sync"]
