"""Two steps that belong together: a stop waits for the second, but not for the next pair."""

import trio

from trio_services import Child, Supervisor, graceful, run


async def transfer() -> None:
    """Move money, never half of it."""
    number = 0
    while True:
        number += 1
        with graceful():
            print(f"transfer {number}: taken")
            await trio.sleep(0.5)
            print(f"transfer {number}: given")
        await trio.sleep(0.1)


run(Supervisor("bank", [Child(transfer, stop_within=5.0)]))
