"""An interpreter that has imported Alembic and the library, and forks for each run: most of a command's time are imports.

Each run is a process of its own, in the state in which `python -m alembic` is once it has imported all that. What registers
with Alembic, `eventstore_sa.migrations`, is left to the run itself. It ends with the process that started it.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tests.project import ROOT

__all__ = ["run_alembic"]

_SERVER: Final = """\
import json, os, sys
import alembic.autogenerate, alembic.config, asyncpg, psycopg, psycopg2, sqlalchemy.ext.asyncio
import sqlalchemy.dialects.postgresql.asyncpg, sqlalchemy.dialects.postgresql.psycopg, sqlalchemy.dialects.sqlite
import eventstore_sa

for line in sys.stdin:
    child = os.fork()
    if not child:
        break
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
else:
    sys.exit()

request = json.loads(line)
os.chdir(request["cwd"])
os.environ.update(request["environment"])
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
for number, name in ((1, "stdout"), (2, "stderr")):
    os.dup2(os.open(os.path.join(request["outputs"], name), os.O_WRONLY | os.O_CREAT), number)
for arguments in request["commands"]:
    alembic.config.main(argv=arguments, prog="alembic")
"""


def run_alembic(
    *commands: Sequence[str], cwd: Path, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run commands of Alembic's one after the other, as the console script does it, until one fails."""
    server = _server(os.getpid())
    assert server.stdin is not None
    assert server.stdout is not None
    with TemporaryDirectory() as outputs:
        request = {"commands": commands, "cwd": str(cwd), "environment": dict(environment), "outputs": outputs}
        server.stdin.write(f"{json.dumps(request)}\n")
        server.stdin.flush()
        status = int(server.stdout.readline())
        stdout, stderr = (Path(outputs, name).read_text() for name in ("stdout", "stderr"))
    return subprocess.CompletedProcess(list(commands), status, stdout, stderr)


@cache
def _server(_owner: int) -> subprocess.Popen[str]:
    server = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", _SERVER],
        cwd=ROOT.anchor,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    atexit.register(_end, server)
    return server


def _end(server: subprocess.Popen[str]) -> None:
    server.communicate()
