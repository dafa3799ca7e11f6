"""Code that shows, while it runs, with which options it does."""

from __future__ import annotations

import attrs
import trio

from trio_services import Secret, Service, WorkQueue, current_service, graceful
from trio_services.config import Live

seen: list[str] = []
made: list[str] = []
broken = False


@attrs.frozen
class Words:
    text: str = "a"
    key: Secret | None = None


class Speak(Service):
    """Says its text at each start, and fails if that is bad."""

    def __init__(self, options: Words) -> None:
        self.options = options

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        if self.options.text == "bad" or broken:
            raise ValueError("bad text")
        key = self.options.key.reveal() if self.options.key else ""
        seen.append(f"speak {self.options.text}{key}")
        task_status.started()
        if self.options.text == "late":
            await trio.sleep(0.5)
            raise ValueError("too late")
        await trio.sleep_forever()


async def listen(options: Live[Words]) -> None:
    words = options.value
    while True:
        seen.append(f"listen {words.text}")
        words = await options.changed(words)


class Handle:
    """Is made once."""

    def __init__(self, options: Words) -> None:
        made.append(options.text)
        self.options = options

    async def __call__(self, item: int) -> None:
        seen.append(f"handle {item} {self.options.text}")
        await trio.sleep(1)


async def fill(numbers: WorkQueue[int]) -> None:
    for number in range(20):
        await numbers.put(number)
        await trio.sleep(1)
    await trio.sleep_forever()


async def idle() -> None:
    await trio.sleep_forever()


async def linger() -> None:
    with graceful():
        await current_service().wait_stop_requested()
        await trio.sleep(3)


class HandleFast:
    """Is made once too."""

    def __init__(self, options: Words) -> None:
        self.options = options

    async def __call__(self, item: int) -> None:
        await trio.sleep(0.01)


async def fill_for_ever(numbers: WorkQueue[int]) -> None:
    number = 0
    while True:
        await numbers.put(number)
        number += 1
        await trio.sleep(0.02)
