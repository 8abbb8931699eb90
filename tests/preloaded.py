"""An interpreter that has imported the library and its drivers, and forks for each program: imports take most of their time.

Each program is a process of its own, in the state in which a fresh interpreter is once it has imported all that. What
registers with Alembic, `eventstore_sa.migrations`, is left to the program. Programs in which imports are what is tested take
`tests.project.run_python`. The interpreter ends with the process that started it, and collects no garbage that was there
before a fork: to look for it at the end would take longer than most programs. Programs can be interrupted, also where a
suite in the background of a shell cannot.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, Final

from tests.project import ROOT

__all__ = ["PreloadedProcess", "run_preloaded", "start_preloaded"]

# Between the server and a program is a process that tells its number, waits for it, and tells how it ended.
_SERVER: Final = """\
import gc, json, os, runpy, signal, socket, sys, types

import aiosqlite, alembic.autogenerate, alembic.config, asyncpg, fastapi.responses, flask_sqlalchemy, httpx
import psycopg, psycopg2, pydantic, sqlalchemy.ext.asyncio
import sqlalchemy.dialects.postgresql.asyncpg, sqlalchemy.dialects.postgresql.psycopg
import sqlalchemy.dialects.postgresql.psycopg2, sqlalchemy.dialects.sqlite.aiosqlite
import eventstore_sa, eventstore_sa.projection, eventstore_sa.subscriptions

signal.signal(signal.SIGINT, signal.default_int_handler)
requests = socket.socket(fileno=int(sys.argv[1]))
inherited = os.environ["PYTHONPATH"].split(os.pathsep)
places = [place for place in sys.path[1:] if place not in inherited]
gc.collect()
gc.freeze()
keepers = set()
while True:
    begun, files, _, _ = socket.recv_fds(requests, 1, 5)
    if not begun:
        requests.close()
        sys.exit()
    keeper = os.fork()
    if not keeper:
        break
    keepers.add(keeper)
    for file in files:
        os.close(file)
    keepers -= {keeper for keeper in keepers if os.waitpid(keeper, os.WNOHANG)[0]}

requests.close()
*standard, status, request = files
program = os.fork()
if program:
    for file in (*standard, request, 0, 1, 2):
        os.close(file)
    os.write(status, f"{program}\\n".encode())
    os.write(status, f"{os.waitstatus_to_exitcode(os.waitpid(program, 0)[1])}\\n".encode())
    os._exit(0)

os.close(status)
for number, file in enumerate(standard):
    os.dup2(file, number)
    os.close(file)
with open(request) as text:
    request = json.load(text)
os.chdir(request["cwd"])
os.environ.clear()
os.environ.update(request["environment"])
sys.path[:] = ["", *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)), *places]
kind, *sys.argv = request["arguments"]
if kind == "-c":
    code, sys.argv[0] = sys.argv[0], "-c"
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    exec(compile(code, "<string>", "exec"), vars(main))
elif kind == "-m":
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
else:
    sys.argv.insert(0, kind)
    sys.path[0] = os.path.dirname(os.path.abspath(kind))
    runpy.run_path(kind, run_name="__main__")
"""


class PreloadedProcess:
    """A program that runs, as `subprocess.Popen` presents one; its streams are files, or what `Popen` takes besides."""

    def __init__(self, arguments: tuple[str, ...], *, stdin: Any, stdout: Any, stderr: Any, **request: Any) -> None:
        self.args = arguments
        self.returncode: int | None = None
        reading, writing = os.pipe()
        self._status = os.fdopen(reading, "rb", buffering=0)
        with ExitStack() as sent:
            sent.callback(os.close, writing)
            text = sent.enter_context(TemporaryFile("w+"))
            json.dump({"arguments": arguments, **request}, text)
            text.seek(0)
            streams = [_stream(given, number, sent) for number, given in enumerate((stdin, stdout, stderr))]
            self.stdin, self.stdout, self.stderr = (ours for ours, _ in streams)
            files = [*(theirs for _, theirs in streams), writing, text.fileno()]
            socket.send_fds(_server(os.getpid()), [b"."], files)
        self.pid = int(self._status.readline())

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        if self.returncode is None and select.select([self._status], [], [], 0)[0]:
            return self.wait()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code at the end."""
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self.returncode = int(self._status.readline())
            self._status.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)


def start_preloaded(
    *arguments: str,
    cwd: Path = ROOT,
    environment: Mapping[str, str] | None = None,
    stdin: Any = subprocess.DEVNULL,
    stdout: Any = None,
    stderr: Any = None,
) -> PreloadedProcess:
    """Start a program; the arguments are those of an interpreter in which every warning is an error."""
    return PreloadedProcess(
        arguments,
        cwd=str(cwd),
        environment={**os.environ, **(environment or {})},
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
    )


def run_preloaded(
    *arguments: str, cwd: Path = ROOT, timeout_s: float = 600.0, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, as `tests.project.run_python` does."""
    with TemporaryFile("w+") as stdout, TemporaryFile("w+") as stderr:
        process = start_preloaded(*arguments, cwd=cwd, environment=environment, stdout=stdout, stderr=stderr)
        try:
            status = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        for output in (stdout, stderr):
            output.seek(0)
        return subprocess.CompletedProcess(list(arguments), status, stdout.read(), stderr.read())


def _stream(given: Any, number: int, sent: ExitStack) -> tuple[IO[str] | None, int]:
    """Return our end, if there is one, and the file that is sent, which is then closed unless it is the caller's."""
    if given is None:
        return None, number
    if given == subprocess.DEVNULL:
        return None, sent.enter_context(Path(os.devnull).open("r+b", buffering=0)).fileno()
    if given != subprocess.PIPE:
        return None, given.fileno()
    reading, writing = os.pipe()
    ours, theirs = (os.fdopen(reading), writing) if number else (os.fdopen(writing, "w"), reading)
    sent.callback(os.close, theirs)
    return ours, theirs


@cache
def _server(_owner: int) -> socket.socket:
    ours, theirs = socket.socketpair()
    with theirs:
        server = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", _SERVER, str(theirs.fileno())],
            cwd=ROOT.anchor,
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
    atexit.register(_end, os.getpid(), server, ours)
    return ours


def _end(owner: int, server: subprocess.Popen[bytes], requests: socket.socket) -> None:
    if os.getpid() == owner:
        requests.close()
        server.wait()
