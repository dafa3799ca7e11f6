"""The only driver of psycopg's generators.

Theory. What psycopg knows of PostgreSQL's protocol is in generators. They call libpq, which does
not block; where they would have to, they yield what they wait for (1: that the socket can be read,
2: written, 3: either), and are sent what it can be. One that is sent 0 yields the same again, which
is how one that was left in the middle is taken up. Everything here is about waiting cheaply: an
answer that is under way takes less time than a trip through Trio's epoll, so a task first lets
others run twice and looks with `poll`, and only then sleeps.

Source: measured; on a local server this is worth 10 to 40 % of the time of a query.
"""

from __future__ import annotations

import select
import sys
from collections.abc import Awaitable, Callable, Generator, Sequence
from time import perf_counter
from typing import Final, TypeVar

import trio
from psycopg import OperationalError

RV = TypeVar("RV")

Steps = Generator[int, int, RV]
"""A generator as psycopg writes them, and as this room does."""

READ: Final = 1
WRITE: Final = 2
EITHER: Final = 3

_FAIR = 0.005  # seconds that a generator which never has to wait may run before others get a turn
_SOON = 0.0005  # seconds; answers that take longer are not worth looking for
_LOOKS = (1, 2)


class Waiter:
    """Drives the generators of one connection, whose socket never changes.

    Args:
        fd: the connection's socket.
        ready: what it is ready for now, as `poll_socket`; for tests.
    """

    __slots__ = ("_fd", "_looks", "_readable", "_ready", "_turn")

    def __init__(
        self, fd: int, ready: Callable[[int, int], Callable[[], int]] | None = None
    ) -> None:
        look = ready or look_at
        self._fd = fd
        self._readable = look(fd, READ)
        self._ready = look(fd, EITHER)
        self._looks: Sequence[int] = _LOOKS  # none when the last answer did not come soon
        self._turn = perf_counter()  # when others last had a turn

    @property
    def readable(self) -> bool:
        """Whether there is something to be read, be it the end of the connection."""
        return bool(self._readable())

    async def breathe(self) -> None:
        """Check for cancellation; others get a turn if they have had none for a while."""
        if perf_counter() - self._turn < _FAIR:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await trio.lowlevel.checkpoint()
            self._turn = perf_counter()

    @trio.lowlevel.enable_ki_protection
    async def drive(self, gen: Steps[RV], *, resume: bool = False) -> RV:
        """Run a generator to its end, and give what it returns.

        Args:
            gen: of psycopg, on the connection of this socket.
            resume: whether it has begun already.

        Raises:
            OperationalError: the socket was closed meanwhile.
            Exception: what the generator raises.

        Cancellation: wherever it waits. The generator is then left where it is.
        """
        try:
            wanted = gen.send(0) if resume else next(gen)
            while True:  # noqa: ASYNC913 -- when it has to wait
                if wanted == READ:
                    began = perf_counter()
                    # Here and not in a function of its own, since each query comes by.
                    for _ in self._looks:
                        await trio.lowlevel.cancel_shielded_checkpoint()
                        if self._readable():
                            self._turn = perf_counter()
                            break
                    else:
                        await trio.lowlevel.wait_readable(self._fd)
                        self._turn = now = perf_counter()
                        self._looks = _LOOKS if now - began < _SOON else ()
                    wanted = gen.send(READ)
                    continue
                ready = self._ready()
                if not wanted & ready:
                    ready = await self._wait_for(wanted)
                elif perf_counter() - self._turn > _FAIR:
                    await trio.lowlevel.checkpoint()
                    self._turn = perf_counter()
                wanted = gen.send(ready & wanted)
        except StopIteration as stop:
            result: RV = stop.value
            return result
        except trio.ClosedResourceError:
            raise OperationalError("the connection was closed while it was in use") from None

    async def _wait_for(self, wanted: int) -> int:
        """Wait until a socket whose buffer is full can be written to, or has something to read."""
        if wanted == WRITE:
            await trio.lowlevel.wait_writable(self._fd)
        else:
            # A server that waits for us to read would never let us write.
            await _wait_for_first(
                self._fd, trio.lowlevel.wait_readable, trio.lowlevel.wait_writable
            )
        self._turn = perf_counter()
        return self._ready()


async def _wait_for_first(fd: int, *waits: Callable[[int], Awaitable[None]]) -> None:
    async def first(wait: Callable[[int], Awaitable[None]]) -> None:
        await wait(fd)
        nursery.cancel_scope.cancel()

    try:
        async with trio.open_nursery() as nursery:
            for wait in waits:
                nursery.start_soon(first, wait)
    except BaseExceptionGroup as group:
        # A cancellation is raised as such, and not as a group of them.
        await trio.lowlevel.checkpoint_if_cancelled()  # noqa: ASYNC120
        raise trio.ClosedResourceError from group


def poll_socket(fd: int, wanted: int) -> Callable[[], int]:
    """What says for which of the wanted things a socket is ready now; it does not wait."""
    flags = (select.POLLIN if wanted & READ else 0) | (select.POLLOUT if wanted & WRITE else 0)
    poll = select.poll()
    poll.register(fd, flags)
    look = poll.poll

    def ready() -> int:
        for _, event in look(0):
            if event & ~(select.POLLIN | select.POLLOUT):
                return wanted  # an error or the end, which reading or writing will tell
            return (READ if event & select.POLLIN else 0) | (WRITE if event & select.POLLOUT else 0)
        return 0

    return ready


def select_socket(fd: int, wanted: int) -> Callable[[], int]:
    """The same where there is no `poll`."""
    reading = [fd] if wanted & READ else []
    writing = [fd] if wanted & WRITE else []

    def ready() -> int:
        readable, writable, _ = select.select(reading, writing, [], 0)
        return (READ if readable else 0) | (WRITE if writable else 0)

    return ready


look_at = select_socket if sys.platform == "win32" else poll_socket
