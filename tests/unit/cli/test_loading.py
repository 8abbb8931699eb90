"""Commands are imported when they are called."""

from __future__ import annotations

import sys

import click
from click.testing import CliRunner

from eventstore_sa.cli import main
from eventstore_sa.cli.loading import LazyGroup, Place
from tests.project import run_python


def test_every_command_can_be_imported_and_is_listed() -> None:
    context = click.Context(main)

    listed = CliRunner().invoke(main, ["--help"]).stdout

    assert {"run", "schema", "subscriptions", "types"} <= {*main.list_commands(context)}
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        assert command is not None
        assert command.name == name
        assert f"\n  {name} " in listed
    assert main.get_command(context, "nonsense") is None


def test_the_list_of_commands_imports_none_of_them() -> None:
    program = (
        "import sys; from eventstore_sa.cli import main; main(['--help'], standalone_mode=False); "
        "sys.exit('eventstore_sa.cli.schema' in sys.modules or 'eventstore_sa.cli.subscriptions' in sys.modules)"
    )

    assert run_python("-c", program).returncode == 0


def test_a_command_whose_extra_is_missing_says_so_alone() -> None:
    group = LazyGroup("group", places={"broken": Place("eventstore_sa_without", "command", "Break.")})

    outcome = CliRunner().invoke(group, ["broken"])

    assert outcome.exit_code == 2
    assert "No module named 'eventstore_sa_without'" in outcome.stderr
    assert "eventstore_sa_without" not in sys.modules
    assert "Break." in CliRunner().invoke(group, ["--help"]).stdout
