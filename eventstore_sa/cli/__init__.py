"""The command line of an event store: `eventstore-sa`, see its `--help`. It needs the extra `cli`.

Each command or group is a module of its own here, which is imported when it is called: so the program starts quickly,
and a command that needs another extra does not keep the others from running. Scripts can rely on the exit codes:

    0    success
    1    what was looked for is not there, or not as it should be: docs/command-line.md says it for each command
    2    the command was called incorrectly, or the driver of the URL is not installed
    3    the database could not be reached, or refused
    130  Ctrl-C
    141  the output was closed, as by `head`
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
        "browse": Place("eventstore_sa.cli.browse", "browse", "Serve web pages over the events, on this machine."),
        "categories": Place("eventstore_sa.cli.figures", "categories", "Print the categories, with their last events."),
        "completion": Place("eventstore_sa.cli.completion", "completion", "Print what completes commands in a shell."),
        "doctor": Place("eventstore_sa.cli.health", "doctor", "Print what is wrong, and what to do."),
        "export": Place("eventstore_sa.cli.transfer", "export", "Write events to a file, as lines of JSON."),
        "import": Place(
            "eventstore_sa.cli.transfer", "import_command", "Store events from an export or another store."
        ),
        "projections": Place("eventstore_sa.cli.projections", "projections", "List stored projections, rebuild them."),
        "run": Place("eventstore_sa.cli.subscriptions", "run_command", "Run subscriptions until SIGTERM or SIGINT."),
        "schema": Place(
            "eventstore_sa.cli.schema", "schema", "Create, change and check tables, functions and triggers."
        ),
        "show": Place("eventstore_sa.cli.events", "show", "Print one event."),
        "stats": Place("eventstore_sa.cli.figures", "stats", "Print how many events there are, and what they take."),
        "stream": Place("eventstore_sa.cli.events", "stream", "Print the events of a stream."),
        "streams": Place("eventstore_sa.cli.figures", "streams", "Print the streams, with how many events they have."),
        "subscriptions": Place(
            "eventstore_sa.cli.subscriptions", "subscriptions", "Look at subscriptions, steer them."
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
