"""Applications as processes of their own."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

ROOT = Path(__file__).parents[2]

# What every program here begins with.
PRELUDE = """\
import os, signal, sys, threading, time
import trio
from trio_services import Child, HostSettings, Service, Supervisor, graceful, run

def say(text):
    print(text, flush=True)

def app(*children, stop_within=1, **policy):
    tree = Supervisor("app", children, stop_within=stop_within / 4, **policy)
    return run(tree, config=HostSettings(stop_within=stop_within))

async def idle():
    say("ready")
    await trio.sleep_forever()

"""


class Program:
    """A running program: its output as it comes, its signals, and how it ended."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._out: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.out: list[str] = []
        self.err = ""
        self._readers = [
            threading.Thread(target=self._read_out, daemon=True),
            threading.Thread(target=self._read_err, daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def _read_out(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._out.put(line.rstrip("\n"))
        self._out.put(None)

    def _read_err(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.err += line

    def wait_for(self, text: str, timeout: float = 20.0) -> None:
        """Read the output up to a line."""
        until = time.monotonic() + timeout
        while text not in self.out:
            try:
                line = self._out.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no {text!r} in {timeout:g} s; {self}") from None
            if line is None:
                raise AssertionError(f"it ended without {text!r}; {self}")
            self.out.append(line)

    def send(self, number: int = signal.SIGTERM) -> float:
        """Send it a signal; returns when."""
        now = time.monotonic()
        self._process.send_signal(number)
        return now

    def wait(self, timeout: float = 20.0) -> int:
        """Its exit status, when it has ended."""
        try:
            status = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout:g} s; {self}") from None
        for reader in self._readers:
            reader.join(5)
        while not self._out.empty():
            if (line := self._out.get()) is not None:
                self.out.append(line)
        return status

    def kill(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.wait()
        for reader in self._readers:
            reader.join()
        for pipe in (self._process.stdout, self._process.stderr):
            assert pipe is not None
            pipe.close()

    def __repr__(self) -> str:
        return f"stdout: {self.out}\nstderr:\n{self.err}"


@contextmanager
def running(
    folder: Path,
    code: str,
    *,
    prelude: str = PRELUDE,
    stderr: Literal["open", "closed"] = "open",
    environment: dict[str, str] | None = None,
) -> Generator[Program]:
    """Run a program until the end of the block, at the latest."""
    path = folder / "program.py"
    path.write_text(prelude + textwrap.dedent(code))
    command: Sequence[str] = [sys.executable, str(path)]
    if stderr == "closed":
        command = ["sh", "-c", 'exec "$0" "$1" 2>&-', *command]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ
        | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": ""}
        | (environment or {}),
    )
    program = Program(process)
    try:
        yield program
    finally:
        program.kill()
