"""A service without a supervisor around it, so that what a stop does is seen directly."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import trio
from trio.testing import wait_all_tasks_blocked

from trio_services.lifecycle import Bus, Lifetime, enter_service

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable


@attrs.frozen
class Diary:
    """What a service did, and when in virtual time."""

    lines: list[tuple[float, str]] = attrs.field(factory=list[tuple[float, str]])

    def note(self, text: str) -> None:
        self.lines.append((round(trio.current_time(), 6), text))


@asynccontextmanager
async def running(run: Callable[[], Awaitable[object]]) -> AsyncGenerator[Lifetime, None]:
    """Run a service until it blocks; the end of the block waits for its end."""
    life = Lifetime("app/service", Bus())

    async def task() -> None:
        enter_service(life)
        with life.scope:
            await run()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(task)
        await wait_all_tasks_blocked()
        yield life
