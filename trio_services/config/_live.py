"""Options that change while the service that has them runs."""

from __future__ import annotations

from typing import Generic, TypeVar

import trio

T = TypeVar("T")


class Live(Generic[T]):
    """The options of a service that takes changes without being started anew.

    A parameter ``options: Live[Options]`` gets one; a reload that changes only the options of
    the service puts the new ones into it, and the service runs on::

        async def run(self) -> None:
            options = self.options.value
            while True:
                with trio.move_on_after(options.period):
                    options = await self.options.changed(options)
                await self.beat(options)

    Args:
        value: the options at first.
    """

    def __init__(self, value: T) -> None:
        self._value = value
        self._replaced = trio.Event()

    def __repr__(self) -> str:
        return f"Live({self._value!r})"

    @property
    def value(self) -> T:
        """The options now."""
        return self._value

    async def changed(self, known: T) -> T:
        """Wait until the options are not those any more that are known, and return them.

        None is missed that is there when it is called; of several, the last is returned.

        Cancellation: at once.
        """
        await trio.lowlevel.checkpoint()
        while self._value is known:
            await self._replaced.wait()
        return self._value

    def replace(self, value: T) -> None:
        """Put other options in; whoever waits for a change goes on."""
        self._value = value
        replaced, self._replaced = self._replaced, trio.Event()
        replaced.set()
