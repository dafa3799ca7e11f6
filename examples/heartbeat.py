"""A service as a class, supervised inside a plain Trio program."""

import trio

from trio_services import Service, Supervisor, every, open_supervisor


class Heartbeat(Service):
    """Tell the status page that we are alive."""

    async def run(self) -> None:
        """Beat twice a second."""
        async for tick in every(0.5):
            print(f"beat {tick.number}")


async def main() -> None:
    """Do what the program is about, with a heartbeat beside it."""
    async with open_supervisor(Supervisor("app", [Heartbeat])):
        await trio.sleep(1.2)
    print("stopped")


trio.run(main)
