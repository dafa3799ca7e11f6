"""A service that takes other options while it runs: edit `bell.toml` meanwhile."""

import attrs
import trio

from trio_services.config import Live, Seconds


@attrs.frozen
class Ring:
    """How it rings."""

    sound: str
    period: Seconds


async def ring(options: Live[Ring]) -> None:
    """Ring, as the file says at the moment."""
    known = options.value
    while True:
        print(known.sound, flush=True)
        with trio.move_on_after(known.period):
            known = await options.changed(known)
