"""Commands about subscriptions: of a database, or of an application that is imported."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Self, cast

import click
from msgspec import to_builtins
from sqlalchemy.exc import SQLAlchemyError

from eventstore_sa.cli.opening import NOT_SO, REFUSED, OpenStore, on_store, url_argument
from eventstore_sa.cli.options import json_option
from eventstore_sa.cli.output import complain, print_json, print_line, visible
from eventstore_sa.contracts.subscriptions import PartitionState, SubscriptionStorage
from eventstore_sa.errors import ConfigurationError, EventStoreError, SubscriptionError
from eventstore_sa.importing import imported
from eventstore_sa.subscriptions.running import (
    SubscriptionRunner,
    SyncSubscriptionRunner,
    catch_up,
    catch_up_sync,
)
from eventstore_sa.subscriptions.status import SubscriptionProgress, statuses
from eventstore_sa.subscriptions.subscription import Subscription, SyncSubscription

__all__ = ["run_command", "subscriptions"]


@click.group()
def subscriptions() -> None:
    """Look at the subscriptions in a database, and steer them."""


@subscriptions.command(name="list")
@url_argument
@json_option
@on_store
def list_command(open_store: OpenStore, *, as_json: bool) -> None:
    """Print how each partition is getting on."""
    _print(statuses(_storage_of(open_store)), as_json=as_json)


@subscriptions.command()
@url_argument
@click.argument("name")
@json_option
@on_store
def parked(open_store: OpenStore, *, name: str, as_json: bool) -> None:
    """Print the events that NAME keeps aside."""
    _print(_storage_of(open_store).parked_events(name), as_json=as_json)


@subscriptions.command()
@url_argument
@click.argument("name")
@on_store
def pause(open_store: OpenStore, *, name: str) -> None:
    """Have nobody process NAME until it is resumed."""
    _expect(name, found=_storage_of(open_store).set_state(name, PartitionState.PAUSED))


@subscriptions.command()
@url_argument
@click.argument("name")
@on_store
def resume(open_store: OpenStore, *, name: str) -> None:
    """Have NAME processed again, after a pause or an error."""
    _expect(name, found=_storage_of(open_store).set_state(name, PartitionState.RUNNING))


@subscriptions.command()
@url_argument
@click.argument("name")
@click.option(
    "--to", type=click.IntRange(min=0), default=0, show_default=True, help="The last event not handled again."
)
@on_store
def rewind(open_store: OpenStore, *, name: str, to: int) -> None:
    """Set NAME back, so that events are handled again."""
    storage = _storage_of(open_store)
    if any(record.sequence_number < to for record in storage.survey([name]).partitions):
        raise click.UsageError(f"a partition of {name} has not come to {to} yet")
    _expect(name, found=storage.move(name, to))


@subscriptions.command()
@url_argument
@click.argument("name")
@click.option("--to", type=click.IntRange(min=0), help="The last event not handled. [default: the last there is]")
@on_store
def skip(open_store: OpenStore, *, name: str, to: int | None) -> None:
    """Set NAME forward, so that events are not handled."""
    storage = _storage_of(open_store)
    _, end = storage.complete_up_to()
    number = end if to is None else to
    if number > end:
        raise click.UsageError(f"the log is complete up to {end} only")
    if any(record.sequence_number > number for record in storage.survey([name]).partitions):
        raise click.UsageError(f"a partition of {name} is beyond {number} already")
    _expect(name, found=storage.move(name, number))


@subscriptions.command()
@url_argument
@click.argument("name")
@click.argument("sequence_number", type=click.IntRange(min=1))
@on_store
def discard(open_store: OpenStore, *, name: str, sequence_number: int) -> None:
    """Forget an event that NAME keeps aside: it is never handled."""
    storage = _storage_of(open_store)
    event = storage.find_parked(name, sequence_number)
    if event is None or not storage.discard(None, event):
        complain(f"{name} keeps no event {sequence_number} aside")
        raise SystemExit(NOT_SO)


@subscriptions.command(name="catch-up")
@click.argument("application")
@click.argument("names", nargs=-1)
@click.option("--quiet", is_flag=True, help="Show no progress.")
def catch_up_command(*, application: str, names: Sequence[str], quiet: bool) -> None:
    """Process subscriptions of APPLICATION, all or those with NAMES, up to the end of the log."""
    found = _named(application, names)
    try:
        with _Bar() as bar:
            progress = None if quiet else bar.show
            if all(isinstance(each, Subscription) for each in found):
                asyncio.run(catch_up(*cast("Sequence[Subscription]", found), progress=progress))
            else:
                catch_up_sync(*cast("Sequence[SyncSubscription]", found), progress=progress)
    except SubscriptionError as error:
        click.echo(error.message, err=True)
        raise SystemExit(NOT_SO) from error
    except (EventStoreError, SQLAlchemyError, OSError) as error:
        click.echo(f"{type(error).__name__}: {error}", err=True)
        raise SystemExit(REFUSED) from error


class _Bar:
    """A bar that shows how far the slowest partition has come; it begins with the first that is known of that."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._start = 0

    def show(self, progress: SubscriptionProgress) -> None:
        if self._bar is None:
            self._start = progress.sequence_number
            length = max(1, progress.last_sequence_number - self._start)
            self._bar = click.progressbar(
                length=length,
                label="catching up",
                file=sys.stderr,
                item_show_func=lambda handled: None if handled is None else f"{handled} events handled",
            )
            self._bar.render_progress()
        # All of it, however little there was to do.
        done = (
            self._bar.length
            if progress.sequence_number >= progress.last_sequence_number
            else progress.sequence_number - self._start
        )
        self._bar.update(max(0, done - self._bar.pos), progress.handled)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.render_finish()


@subscriptions.command()
@click.argument("application")
@click.argument("name")
def replay(*, application: str, name: str) -> None:
    """Handle the parked events of NAME again; APPLICATION is `module:name`, a list of subscriptions."""
    (subscription,) = _named(application, [name])
    count = asyncio.run(subscription.replay()) if isinstance(subscription, Subscription) else subscription.replay()
    click.echo(f"{count} events handled")


@click.command(name="run")
@click.argument("application")
@click.option("--lease", "lease_s", type=float, default=30.0, show_default=True, help="In seconds.")
@click.option("--connections", type=int, default=4, show_default=True, help="How many are used at a time.")
@click.option("--notifications", is_flag=True, help="Listen for commits of other processes, and notify them.")
def run_command(*, application: str, lease_s: float, connections: int, notifications: bool) -> None:
    """Run the subscriptions of APPLICATION, `module:name`, until SIGTERM or SIGINT."""
    found = _subscriptions_of(application)
    click.echo(f"running {', '.join(each.name for each in found)}; Ctrl-C or SIGTERM ends it", err=True)
    options: dict[str, Any] = {"lease_s": lease_s, "connections": connections, "notifications": notifications}
    if all(isinstance(each, Subscription) for each in found):
        asyncio.run(_run(cast("Sequence[Subscription]", found), **options))
        return
    runner = SyncSubscriptionRunner(cast("Sequence[SyncSubscription]", found), **options)

    def stop(_number: int, _frame: object) -> None:
        runner.stop()

    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, stop)
    with runner:
        runner.wait()


async def _run(found: Sequence[Subscription], **options: Any) -> None:
    async with SubscriptionRunner(found, **options) as runner:
        for each in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(each, runner.stop)
        await runner.wait()


def _named(application: str, names: Sequence[str]) -> Sequence[Subscription | SyncSubscription]:
    found = _subscriptions_of(application)
    unknown = [name for name in names if name not in {each.name for each in found}]
    if unknown:
        raise click.UsageError(f"{application} has no subscription {unknown[0]}")
    return [each for each in found if not names or each.name in names]


def _subscriptions_of(application: str) -> Sequence[Subscription | SyncSubscription]:
    try:
        given = imported(application)
    except ConfigurationError as error:
        raise click.UsageError(error.message) from error
    found: list[Any] = list(cast("Any", given)) if isinstance(given, list | tuple) else [given]
    if not found or not all(isinstance(each, Subscription | SyncSubscription) for each in found):
        raise click.UsageError(f"{application} is not a subscription, nor a list of subscriptions")
    return found


def _storage_of(open_store: OpenStore) -> SubscriptionStorage:
    return open_store.store.adapter.subscription_storage()


def _expect(name: str, *, found: bool) -> None:
    if not found:
        complain(f"there is no subscription {name}")
        raise SystemExit(NOT_SO)


def _print(found: Iterable[Any], *, as_json: bool) -> None:
    for each in found:
        if as_json:
            print_json(each)
            continue
        values: dict[str, Any] = to_builtins(each)
        print_line(visible("  ".join(f"{key}={value}" for key, value in values.items() if value is not None)))
