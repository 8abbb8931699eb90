"""What commands print: text that cannot steer a terminal, tables, JSON, colours and progress bars.

Names and payloads were written by anybody: a terminal would obey the escape sequences in them. So everything that comes from
the database is printed through here, with what is not printable written as an escape. Colours and bars are for terminals;
rich is imported only there.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final
from unicodedata import east_asian_width

import click
import msgspec

from eventstore_sa.types import AnyStoredEvent, encode_json

__all__ = [
    "complain",
    "event_line",
    "is_terminal",
    "moment",
    "nested_json",
    "note",
    "print_json",
    "print_line",
    "print_table",
    "progress_bar",
    "size",
    "visible",
]

# Joins letters and parts of emojis, and does nothing else.
_JOINERS: Final = "\u200c\u200d"
_UNITS: Final = ("bytes", "kB", "MB", "GB", "TB", "PB")
_WIDE: Final = ("W", "F")
_LEAST_ROOM: Final = 20

Advance = Callable[[int], None]
"""Takes how far something has come."""


def is_terminal(*, err: bool = False) -> bool:
    """Tell whether somebody looks at what is printed, at a terminal that can more than print."""
    stream = sys.stderr if err else sys.stdout
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def has_colours() -> bool:
    """Tell whether to print in colours; see https://no-color.org."""
    return is_terminal() and not os.environ.get("NO_COLOR")


def visible(text: str) -> str:
    """Return a text with what is not printable as escapes: control characters, changes of direction, lone surrogates."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each in _JOINERS else _escaped(each) for each in text)


def print_line(text: str = "", *, err: bool = False) -> None:
    """Print a line, which is already safe to print."""
    stream = sys.stderr if err else sys.stdout
    encoding = stream.encoding or "ascii"
    # A terminal without UTF-8 gets escapes for what it cannot show.
    click.echo(text.encode(encoding, "backslashreplace").decode(encoding), err=err, color=has_colours())


def complain(message: str) -> None:
    """Print what went wrong, to standard error."""
    print_line("\n".join(visible(line) for line in message.split("\n")), err=True)


def note(message: str) -> None:
    """Print a remark to standard error, so that it is not part of the output."""
    complain(message)


def print_json(value: Any) -> None:
    """Print a value as JSON on a line: exactly on a pipe, with escapes for what is not printable on a terminal."""
    text = encode_json(msgspec.to_builtins(value)).decode()
    if is_terminal():
        text = "".join(each if each.isprintable() else _json_escaped(each) for each in text)
    print_line(_encodable_json(text))


def nested_json(value: Any) -> list[str]:
    """Return a value as JSON over several lines, safe to print."""
    text = msgspec.json.format(encode_json(value), indent=2).decode()
    lines = ("".join(each if each.isprintable() else _json_escaped(each) for each in line) for line in text.split("\n"))
    return [*map(_encodable_json, lines)]


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[int] = ()) -> None:
    """Print rows in aligned columns.

    Args:
        headings: The names of the columns.
        rows: The values, of which texts are made.
        right: Which columns are aligned to the right: those of numbers.
    """
    texts = [[visible(str(value)) for value in row] for row in rows]
    widths = [max(map(_width, column)) for column in zip(headings, *texts, strict=True)]
    for number, row in enumerate([[heading.upper() for heading in headings], *texts]):
        cells = [
            (" " * (width - _width(cell)) + cell) if column in right else (cell + " " * (width - _width(cell)))
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        line = "  ".join(cells).rstrip()
        print_line(click.style(line, bold=True) if number == 0 else line)


def event_line(event: AnyStoredEvent) -> str:
    """Return an event on a line, safe to print, cut to the width of the terminal if there is one."""
    head = [
        click.style(str(event.sequence_number), fg="yellow"),
        click.style(moment(event.observed_at), fg="blue"),
        click.style(f"{visible(event.category)}/{visible(event.stream)}@{event.position}", fg="cyan"),
        click.style(visible(event.name), bold=True),
    ]
    payload = encode_json(event.payload).decode()
    if is_terminal():
        taken = sum(_width(click.unstyle(part)) + 2 for part in head)
        payload = _cut(payload, max(shutil.get_terminal_size().columns - taken, _LEAST_ROOM))
    return "  ".join([*head, visible(payload)])


def moment(value: datetime | None) -> str:
    """Return a time to the millisecond, in UTC."""
    return "-" if value is None else value.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + "Z"


def size(size_bytes: int | None) -> str:
    """Return a number of bytes in the unit that fits."""
    if size_bytes is None:
        return "-"
    value, unit = float(size_bytes), 0
    while value >= 1000 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.0f} {_UNITS[unit]}" if unit == 0 else f"{value:.1f} {_UNITS[unit]}"


@contextmanager
def progress_bar(what: str, total: int | None) -> Generator[Advance]:
    """Show a bar on standard error while something is done, if that is a terminal.

    Args:
        what: What is done.
        total: Where it ends; None: not known.
    """
    if not is_terminal(err=True):
        yield lambda _: None
        return
    from rich.console import Console  # noqa: PLC0415 - only terminals need it
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    console = Console(stderr=True, markup=False, highlight=False)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(visible(what), total=total)
        yield lambda done: progress.update(task, completed=done)


def _escaped(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def _encodable_json(text: str) -> str:
    """Return JSON in the encoding of standard output, with JSON's own escapes for what that has no characters for."""
    encoding = sys.stdout.encoding or "ascii"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return "".join(each if _is_in(encoding, each) else json.dumps(each)[1:-1] for each in text)
    return text


def _is_in(encoding: str, character: str) -> bool:
    try:
        character.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _json_escaped(character: str) -> str:
    return json.dumps(character)[1:-1] if character > "\x7f" else f"\\u{ord(character):04x}"


def _cut(text: str, columns: int) -> str:
    """Cut a text that is not safe yet, so that it takes about that many columns."""
    taken = 0
    for place, character in enumerate(text):
        taken += len(_escaped(character)) if not character.isprintable() else _width(character)
        if taken > columns - 1:
            return f"{text[:place]}…"
    return text


def _width(text: str) -> int:
    """Return how many columns a text takes on a terminal."""
    return len(text) if text.isascii() else sum(2 if east_asian_width(each) in _WIDE else 1 for each in text)
