"""The command that prints what a shell needs to complete commands and options."""

from __future__ import annotations

from typing import Final

import click
from click.shell_completion import get_completion_class

__all__ = ["completion"]

_SHELLS: Final = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def completion(context: click.Context, *, shell: str) -> None:
    """Print a script that completes commands and options in SHELL.

    bash: eval "$(eventstore-sa completion bash)" in ~/.bashrc; zsh the same in ~/.zshrc; fish: eventstore-sa completion
    fish > ~/.config/fish/completions/eventstore-sa.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 - click knows these shells
    click.echo(kind(context.find_root().command, {}, "eventstore-sa", "_EVENTSTORE_SA_COMPLETE").source())
