"""A service that finds something wrong."""

import trio


async def guard() -> None:
    """Look after the shop at night."""
    await trio.sleep(60)
    raise RuntimeError("the back door is open")
