"""A group of commands that imports a command when it is called, and not to list it.

Other modules of the command line know nothing of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, NamedTuple

import click
from click.shell_completion import CompletionItem

__all__ = ["LazyGroup", "Place"]


class Place(NamedTuple):
    """Where a command is, and how it is listed.

    Attributes:
        module: Its module.
        name: Its name there.
        help: What it does, in a line: its own help is not at hand until it is imported.
    """

    module: str
    name: str
    help: str


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called.

    Args:
        arguments: Those of a `click.Group`.
        places: Where each command is.
        options: Those of a `click.Group`.
    """

    def __init__(self, *arguments: Any, places: Mapping[str, Place], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._places = places

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands, without importing one."""
        return sorted(self._places)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command.

        Raises:
            UsageError: If what it needs is not installed; the message names the extra.
        """
        place = self._places.get(cmd_name)
        if place is None:
            return None
        try:
            command: click.Command = getattr(import_module(place.module), place.name)
        except ImportError as error:
            raise click.UsageError(str(error), ctx) from error
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete the name of a command, without importing one."""
        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        names = [name for name in self.list_commands(ctx) if name.startswith(incomplete)]
        return [CompletionItem(name, help=self._places[name].help) for name in names]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands, without importing one."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, self._places[name].help) for name in self.list_commands(ctx)])
