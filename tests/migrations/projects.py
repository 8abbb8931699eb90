"""Hosts on disk: a folder as `alembic init` makes it, models that attach an event store, and Alembic run as a command.

What is changed in `env.py` is what the documentation tells hosts to change, and nothing else, unless a test asks for it.
"""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from sqlalchemy import URL, Engine, NullPool, create_engine

from eventstore_sa import EventStoreSchema
from tests.preloaded import run_preloaded
from tests.project import ROOT, run_python

__all__ = ["IMPORTS", "IN_TURN", "MODELS", "Project"]

# Several commands in one process, each as the console script does it: most of a command's time are its imports.
IN_TURN: Final = """\
import json, sys
from alembic.config import main
for arguments in json.loads(sys.argv[1]):
    main(argv=arguments, prog="alembic")
"""

FILES: Final = {".py", ".ini", ".mako"}

MODELS: Final = """\
from sqlalchemy import ForeignKey, MetaData
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from eventstore_sa import EventStoreSchema


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={{
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }}
    )


schema = EventStoreSchema(Base.metadata, prefix={prefix!r}, schema={schema!r})


class Receipt(Base):
    __tablename__ = "receipts"
    number: Mapped[int] = mapped_column(primary_key=True)
    customer: Mapped[str] = mapped_column(index=True)
    event_id = mapped_column(ForeignKey(schema.events.c.id), unique=True)
"""

IMPORTS: Final = """\
import eventstore_sa.migrations
from models import Base

target_metadata = Base.metadata
"""


class Project:
    """A host with migrations.

    Args:
        folder: Where to make it.
        url: Its database.
        template: Which of Alembic's templates it begins from.
        schema: What its event store is called.
        models: The text of its models, in place of `MODELS`.
        imports: What takes the place of `target_metadata = None`.
        configure: More arguments of `context.configure`.
        environment: Variables for every command.
    """

    def __init__(
        self,
        folder: Path,
        url: URL,
        *,
        template: str = "generic",
        schema: EventStoreSchema | None = None,
        models: str = MODELS,
        imports: str = IMPORTS,
        configure: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.url = url
        self.schema = schema or EventStoreSchema()
        self.environment = {"PYTHONPATH": str(ROOT), **(environment or {})}
        for name, text in _initial_files(template).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        (folder / "migrations" / "versions").mkdir()
        (folder / "models.py").write_text(
            models.format(prefix=self.schema.prefix, schema=self.schema.schema) if models is MODELS else models
        )
        self._edit("alembic.ini", "driver://user:pass@localhost/dbname", url.render_as_string(hide_password=False))
        self._edit("migrations/env.py", "target_metadata = None\n", imports)
        if configure:
            self._edit(
                "migrations/env.py", "target_metadata=target_metadata", f"target_metadata=target_metadata, {configure}"
            )

    def alembic(self, *arguments: str, fails: bool = False) -> str:
        """Run a command of Alembic's; return what it printed, errors included if it `fails`, as it then must."""
        outcome = self.run(*arguments)
        if fails:
            assert outcome.returncode != 0, outcome.stdout + outcome.stderr
            return outcome.stdout + outcome.stderr
        assert outcome.returncode == 0, outcome.stdout + outcome.stderr
        return outcome.stdout

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of Alembic's, whatever comes of it."""
        return self._run(arguments)

    def run_python(self, program: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the host's."""
        return self._run_python("-c", program)

    def in_turn(self, *commands: str) -> str:
        """Run commands of Alembic's one after the other, all of which must succeed; return what they printed."""
        outcome = self._run(*(shlex.split(command) for command in commands))
        assert outcome.returncode == 0, outcome.stdout + outcome.stderr
        return outcome.stdout

    def autogenerate(self) -> str:
        """Write a revision, and return what it does."""
        self.alembic("revision", "--autogenerate", "-m", "change")
        return self.newest()

    def newest(self, *, comments: bool = False) -> str:
        """Return what the newest revision does, without empty lines, and without comments unless they are asked for."""
        text = max(self.revisions(), key=lambda path: path.stat().st_mtime_ns).read_text()
        lines = [line for line in text[text.index("def upgrade") :].splitlines() if line.strip()]
        return "\n".join(line for line in lines if comments or not line.strip().startswith(("#", '"""')))

    def revisions(self) -> list[Path]:
        """Return the files of its revisions."""
        return sorted((self.folder / "migrations" / "versions").glob("*.py"))

    def engine(self, **options: Any) -> Engine:
        """Make an engine without asyncio for its database."""
        name = "sqlite" if self.url.get_backend_name() == "sqlite" else "postgresql+psycopg"
        return create_engine(self.url.set(drivername=name), poolclass=NullPool, **options)

    def _run(self, *commands: Sequence[str]) -> subprocess.CompletedProcess[str]:
        return self._run_python("-c", IN_TURN, json.dumps(commands))

    def _run_python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        # Its packages may be others than those that are preloaded.
        run = run_preloaded if self.environment["PYTHONPATH"] == str(ROOT) else run_python
        return run(*arguments, cwd=self.folder, environment=self.environment)

    def _edit(self, name: str, old: str, new: str) -> None:
        path = self.folder / name
        text = path.read_text()
        assert old in text, f"Alembic's template has changed: {old!r} is not in {name}"
        path.write_text(text.replace(old, new))


@cache
def _initial_files(template: str) -> dict[str, str]:
    """Return what `alembic init` makes."""
    with TemporaryDirectory() as name:
        outcome = run_preloaded("-m", "alembic", "init", "-t", template, "migrations", cwd=Path(name))
        assert outcome.returncode == 0, outcome.stderr
        folder = Path(name)
        return {
            path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.suffix in FILES
        }
