"""The command line of an event store: `eventstore-sa`, see its `--help`. It needs the extra `cli`.

Each command or group is a module of its own here, which is imported when it is called: so the program starts quickly,
and a command that needs another extra does not keep the others from running. Scripts can rely on the exit codes:

    0  success: the schema is correct, the event types are compatible
    1  the schema is missing, of another version, or not as it should be; or the types are not as the file says
    2  the command was called incorrectly
    3  the database could not be reached, or refused
"""

from __future__ import annotations

try:
    import click
except ImportError as _error:
    raise ImportError("the command line needs click: install it with the extra 'eventstore-sa[cli]'") from _error

from eventstore_sa.cli.loading import LazyGroup, Place

__all__ = ["main"]


@click.group(
    cls=LazyGroup,
    places={
        "backfill-tags": Place(
            "eventstore_sa.cli.tags", "backfill_tags", "Add tags to events that were stored without them."
        ),
        "categories": Place("eventstore_sa.cli.figures", "categories", "Print the categories, with their last events."),
        "doctor": Place("eventstore_sa.cli.health", "doctor", "Print what is wrong, and what to do."),
        "run": Place(
            "eventstore_sa.subscriptions.commands", "run_command", "Run subscriptions until SIGTERM or SIGINT."
        ),
        "schema": Place(
            "eventstore_sa.cli.schema", "schema", "Create, change and check tables, functions and triggers."
        ),
        "show": Place("eventstore_sa.cli.events", "show", "Print one event."),
        "stats": Place("eventstore_sa.cli.figures", "stats", "Print how many events there are, and what they take."),
        "stream": Place("eventstore_sa.cli.events", "stream", "Print the events of a stream."),
        "streams": Place("eventstore_sa.cli.figures", "streams", "Print the streams, with how many events they have."),
        "subscriptions": Place(
            "eventstore_sa.subscriptions.commands", "subscriptions", "Look at subscriptions, steer them."
        ),
        "tail": Place("eventstore_sa.cli.events", "tail", "Print the last events, and those to come."),
        "trace": Place("eventstore_sa.cli.events", "trace", "Print the events that belong together."),
        "types": Place("eventstore_sa.cli.types", "types", "Check how event types change."),
        "watermark": Place("eventstore_sa.cli.figures", "watermark", "Print who holds readers of the log back."),
    },
)
@click.version_option(package_name="eventstore-sa", message="%(version)s")
def main() -> None:
    """Manage an event store."""
