"""The process that owns one temporary server, and ends it when the process that asked for it is gone.

Run as a script, with the standard library alone: `python -I -S keeper.py DIRECTORY`. On standard input comes one line
of JSON (see `Plan`), later anything at all to stop; standard output answers `ready`, or says what went wrong. Being the
parent of `postgres`, it can wait for it; being a child of its owner, it sees the owner's death in its own parent id,
whatever way the owner died, and however many forked children still hold the other ends of the pipes.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TypedDict

__all__ = ["Plan", "main"]

_OWNER_CHECK_INTERVAL_S = 0.2
_READY_CHECK_INTERVAL_S = 0.005
_INITDB_TIMEOUT_S = 120.0
_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 15.0
_LOG_LINES = 20
_PR_SET_PDEATHSIG = 1


class Plan(TypedDict):
    """What to run, and as whom: user and group are None to stay the same."""

    initdb: list[str]
    postgres: list[str]
    user: int | None
    group: int | None


class _NotStartedError(Exception):
    pass


def main(directory: Path, owner: int) -> int:
    """Create, run and remove the server in `directory`, for as long as `owner` lives and does not say stop."""
    signal.signal(signal.SIGTERM, _unwind)
    try:
        line = _next_line(owner)
        if line:
            _keep(directory, json.loads(line), owner)
    except _NotStartedError as error:
        sys.stdout.write(str(error))
        return 1
    finally:
        _remove(directory)
    return 0


def _keep(directory: Path, plan: Plan, owner: int) -> None:
    log_path = directory / "log"
    with log_path.open("wb") as log:
        initdb = _spawn(plan["initdb"], plan, directory, log.fileno())
        try:
            status = initdb.wait(_INITDB_TIMEOUT_S)
        finally:
            _end(initdb, signal.SIGKILL)
        if status:
            raise _NotStartedError(f"initdb ended with status {status}:\n{_tail(log_path)}")
        server = _spawn(plan["postgres"], plan, directory, log.fileno())
        try:
            _wait_until_ready(server, directory / "data" / "postmaster.pid", log_path)
            sys.stdout.write("ready\n")
            sys.stdout.flush()
            _next_line(owner)
        finally:
            _end(server, signal.SIGQUIT)


def _unwind(_number: int, _frame: object) -> None:
    sys.exit(1)  # Through every `finally`, so that server and directory still go.


def _spawn(command: list[str], plan: Plan, directory: Path, log: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        user=plan["user"],
        group=plan["group"],
        extra_groups=None if plan["user"] is None else [],
        # Safe here: this process has one thread, and it is that thread whose death the kernel reports.
        preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509
    )


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)


def _wait_until_ready(server: subprocess.Popen[bytes], status_file: Path, log_path: Path) -> None:
    """Wait for the line that the postmaster writes for `pg_ctl --wait`, the eighth of `postmaster.pid`."""
    deadline = time.monotonic() + _START_TIMEOUT_S
    while True:
        if server.poll() is not None:
            raise _NotStartedError(f"postgres ended with status {server.returncode}:\n{_tail(log_path)}")
        lines = status_file.read_text().splitlines() if status_file.exists() else []
        if len(lines) >= 8 and lines[7].strip() == "ready":
            return
        if time.monotonic() > deadline:
            raise _NotStartedError(f"postgres was not ready after {_START_TIMEOUT_S:.0f} s:\n{_tail(log_path)}")
        time.sleep(_READY_CHECK_INTERVAL_S)


def _next_line(owner: int) -> bytes:
    """Read until a line is complete, the other end is closed, or the owner is dead: then b'' comes back.

    The parent id is what counts: a forked child of the owner holds the other end open after the owner's death, but
    this process is then no longer the owner's child.
    """
    received = bytearray()
    while os.getppid() == owner:
        if select.select([sys.stdin.fileno()], [], [], _OWNER_CHECK_INTERVAL_S)[0]:
            part = os.read(sys.stdin.fileno(), 65536)
            received += part
            if not part:
                break
            if received.endswith(b"\n"):
                return bytes(received)
    return b""


def _end(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
    if process.poll() is None:
        process.send_signal(how)
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _remove(directory: Path) -> None:
    for _ in range(50):  # A backend that outlived a killed postmaster may still be writing.
        shutil.rmtree(directory, ignore_errors=True)
        if not directory.exists():
            return
        time.sleep(0.1)


def _tail(log_path: Path) -> str:
    return "\n".join(log_path.read_text(errors="replace").splitlines()[-_LOG_LINES:])


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
