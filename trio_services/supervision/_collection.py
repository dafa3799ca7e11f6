"""Keep the garbage collector from looking at thousands of new objects over and over."""

from __future__ import annotations

import gc
from collections.abc import Generator
from contextlib import contextmanager

import trio

_MANY = 500
"""New children from which on a pause pays: Python collects after every 700 new objects."""


@contextmanager
def collection_paused(count: int) -> Generator[bool, None, None]:
    """Pause the collector inside the block, if that pays; whether it does.

    While many children are made, start or end at once, next to nothing of what is made can be
    garbage, but each collection looks at all of it: that costs a third of the time. It is a matter
    of milliseconds, and reference counting goes on meanwhile. What was made counts as old at once,
    or the first collection after the pause would look at all of it after all.

    Args:
        count: how many children are made, start or end.
    """
    if count < _MANY or not gc.isenabled():
        yield False
        return
    gc.disable()
    try:
        yield True
    finally:
        if not gc.get_freeze_count():  # what the program itself has frozen stays so
            gc.freeze()
            gc.unfreeze()  # into the oldest generation
        gc.enable()


async def next_steps() -> None:
    """Return when all tasks that may run now have taken their next step.

    Cancellation: at once.
    """
    # They run in the next batch of tasks, as this one does, before it or after it.
    await trio.lowlevel.checkpoint()
    await trio.lowlevel.checkpoint()
