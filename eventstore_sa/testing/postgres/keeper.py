"""The process that runs one temporary server, and stops it when its owner exits.

A script that uses only the standard library: `python -I -S keeper.py DIRECTORY OWNER`. It reads one line of JSON (see
`Plan`) from standard input, and any further line as the request to stop; it prints `ready`, or what went wrong. As the
parent of `postgres`, it can wait for it. As a child of its owner, it notices in its parent id that the owner died, however
that happened, and even if forked children of the owner still hold the other ends of the pipes.
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
    """The commands to run; `user` and `group` are None to run them as the user of this process."""

    initdb: list[str]
    postgres: list[str]
    user: int | None
    group: int | None


class _NotStartedError(Exception):
    pass


def main(directory: Path, owner: int) -> int:
    """Create and run the server in `directory` until `owner` exits or sends stop, then remove it."""
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
    sys.exit(1)  # Runs every `finally`, which stops the server and removes the directory.


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
        # Safe: this process has one thread, and the kernel reports the death of that thread.
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
    """Return the next line, or b'' if the pipe is closed or the owner has died.

    The parent id decides: after the owner's death its forked children still hold the pipe open, but this process has
    another parent.
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
    for _ in range(50):  # A backend may outlive a killed postmaster and still write.
        shutil.rmtree(directory, ignore_errors=True)
        if not directory.exists():
            return
        time.sleep(0.1)


def _tail(log_path: Path) -> str:
    return "\n".join(log_path.read_text(errors="replace").splitlines()[-_LOG_LINES:])


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
