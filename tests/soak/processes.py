"""The processes of a soak: started, killed, ended by closing their stdin, and never left behind."""

from __future__ import annotations

import subprocess
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Self

import msgspec

from tests.preloaded import PreloadedProcess, start_preloaded

__all__ = ["Processes", "Program"]


class Program(msgspec.Struct, frozen=True):
    """A module to run, and its arguments."""

    module: str
    arguments: tuple[str, ...]


class Processes:
    """Running programs; those that are killed are started again."""

    def __init__(self, programs: list[Program], folder: Path) -> None:
        self._folder = folder
        self._running = [(program, self._start(program)) for program in programs]

    def kill_one(self, random: Random) -> None:
        """Kill a process the hard way, and start its program again."""
        number = random.randrange(len(self._running))
        program, process = self._running[number]
        self._end_at_once(process)
        self._running[number] = program, self._start(program)

    def require_alive(self) -> None:
        """Raise when a process ended by itself.

        Raises:
            RuntimeError: One did; what it said on stderr is in the message.
        """
        for program, process in self._running:
            if process.poll() is not None:
                raise RuntimeError(self._ended_badly(program, process))

    def end(self, timeout_s: float) -> None:
        """Close stdin of all, and wait until they have ended.

        Raises:
            RuntimeError: One ended with an error.
            subprocess.TimeoutExpired: One did not end.
        """
        for _, process in self._running:
            assert process.stdin is not None
            process.stdin.close()
        for program, process in self._running:
            if process.wait(timeout_s) != 0:
                raise RuntimeError(self._ended_badly(program, process))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for _, process in self._running:
            self._end_at_once(process)

    @staticmethod
    def _end_at_once(process: PreloadedProcess) -> None:
        process.kill()
        process.wait()
        if process.stdin is not None:
            process.stdin.close()

    def _start(self, program: Program) -> PreloadedProcess:
        with self._errors(program).open("ab") as errors:
            return start_preloaded(
                "-m", program.module, str(self._folder), *program.arguments, stdin=subprocess.PIPE, stderr=errors
            )

    def _errors(self, program: Program) -> Path:
        return self._folder / f"{program.arguments[0]}.stderr"

    def _ended_badly(self, program: Program, process: PreloadedProcess) -> str:
        said = self._errors(program).read_text(encoding="utf-8", errors="replace")
        return f"{program.module} {program.arguments} ended with {process.returncode}:\n{said[-4000:]}"
