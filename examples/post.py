"""The code of an application that `post.toml` describes; by itself it runs nothing."""

import attrs
import trio

from trio_services import Service, WorkQueue, every
from trio_services.config import Seconds


@attrs.frozen
class Options:
    """How often letters come in."""

    period: Seconds = 1.0


class Receive(Service):
    """Take in the letters of the day."""

    def __init__(self, options: Options, letters: WorkQueue[str]) -> None:
        self.options = options
        self.letters = letters

    async def run(self) -> None:
        """Put each letter on the queue."""
        async for tick in every(self.options.period):
            await self.letters.put(f"letter {tick.number}")


async def answer(letter: str) -> None:
    """Answer one letter."""
    await trio.sleep(0.1)
    print(f"answered {letter}")
