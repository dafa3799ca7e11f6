"""Handlers in processes of their own, which cannot hold up the event loop and can be killed."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import attrs
import trio

from ..errors import WorkerProcessDied
from ..resilience import timeout as limit
from ._worker_process import LENGTH, frame

_PROGRAM = Path(__file__).with_name("_worker_process.py")
_SECONDS_TO_END = 5.0


class Processes:
    """The worker processes of one pool: as many as are needed at the same time, kept for more.

    ::

        async with Processes(crunch, None) as processes:
            await processes.call(item)

    Args:
        function: what to call; it and its items have to be such that they can be pickled.
        timeout: seconds that a call may take; None: no limit.
    """

    def __init__(self, function: Callable[[Any], object], timeout: float | None) -> None:
        self._function = function
        self._limit = nullcontext if timeout is None else partial(limit, timeout)
        # What our own program defines is not known elsewhere: a process has to read the program.
        is_own = b"__main__" in pickle.dumps(function)
        self._program: str | None = None
        if is_own:
            main = sys.modules["__main__"]
            self._program = main.__file__
            sys.modules["__mp_main__"] = main  # as which the process calls it in its answers
        self._idle: list[_Process] = []

    async def __aenter__(self) -> Self:
        await trio.lowlevel.checkpoint()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        async with trio.open_nursery() as nursery:
            for process in self._idle:
                nursery.start_soon(process.end)

    async def prepare(self, count: int) -> None:
        """Start so many, so that no job has to wait for that.

        Raises: see `call`.

        Cancellation: kills those that are not ready.
        """
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(self._start_one)

    async def call(self, item: object) -> None:
        """Call the function in one that is idle, or a new one.

        Raises:
            WorkerProcessDied: the process ended instead of answering.
            TimedOut: it took longer than the time-out, to which the start of a process does not
                count.
            Exception: what the function raised, with its traceback there as a note.

        Cancellation: kills the process.
        """
        request = frame((self._function, item))
        process = await self._take_one()
        with self._limit():
            answer = await process.ask(request)
        self._idle.append(process)
        _raise_failure(answer)

    async def _take_one(self) -> _Process:
        """One that is idle, or a new one; one that has died meanwhile is nobody's failure."""
        while True:
            if not self._idle:
                await self._start_one()
            process = self._idle.pop()
            if process.is_alive:
                return process
            await process.kill()

    async def _start_one(self) -> None:
        """Start one that has imported the function."""
        process = await _Process.start(self._program)
        answer = await process.ask(frame((callable, self._function)))
        try:
            _raise_failure(answer)
        except BaseException:
            await process.kill()  # noqa: ASYNC102 -- shielded in itself
            raise
        self._idle.append(process)


def _raise_failure(answer: bytes) -> None:
    failure: tuple[BaseException, str] | None = pickle.loads(answer)
    if failure is not None:
        error, text = failure
        error.add_note(f"in a worker process:\n{text.rstrip()}")
        raise error


@attrs.define(eq=False)
class _Process:
    """One worker process; all of it is about one call at a time."""

    _process: trio.Process
    _requests: trio.abc.SendStream
    _answers: trio.abc.ReceiveStream

    @classmethod
    async def start(cls, program: str | None) -> Self:
        """Start one, which reads the file of a program if one is given."""
        process = await trio.lowlevel.open_process(
            [sys.executable, str(_PROGRAM)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        started = cls(process, *_pipes(process))
        try:
            await started._requests.send_all(frame((sys.path, program)))
        except BaseException:
            await started.kill()  # noqa: ASYNC102 -- shielded in itself
            raise
        return started

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended by itself, or at the hands of somebody else."""
        return self._process.returncode is None

    async def ask(self, request: bytes) -> bytes:
        """What the process answers.

        Cancellation: kills it, as any error does.
        """
        try:
            await self._requests.send_all(request)
            (length,) = LENGTH.unpack(await self._receive(LENGTH.size))
            return await self._receive(length)
        except trio.BrokenResourceError:
            await self.kill()  # noqa: ASYNC120 -- shielded in itself
            raise WorkerProcessDied(await self._process.wait()) from None
        except BaseException:
            await self.kill()  # noqa: ASYNC102 -- shielded in itself
            raise

    async def _receive(self, length: int) -> bytes:
        data = bytearray()
        while len(data) < length:
            more = await self._answers.receive_some(min(length - len(data), 65536))
            if not more:
                raise trio.BrokenResourceError
            data += more
        return bytes(data)

    async def end(self) -> None:
        """Let it end; kill it if it does not.

        Cancellation: kills it at once.
        """
        try:
            await self._requests.aclose()
            with trio.move_on_after(_SECONDS_TO_END):
                await self._process.wait()
        finally:
            await self.kill()  # noqa: ASYNC102 -- shielded in itself

    async def kill(self) -> None:
        """End it now; not cancelled, because it takes no time."""
        with suppress(ProcessLookupError):
            self._process.kill()
        with trio.move_on_after(_SECONDS_TO_END, shield=True):
            await self._process.wait()
            await self._requests.aclose()
            await self._answers.aclose()


def _pipes(process: trio.Process) -> tuple[trio.abc.SendStream, trio.abc.ReceiveStream]:
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the process was started without pipes")
    return process.stdin, process.stdout
