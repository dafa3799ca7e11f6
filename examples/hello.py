"""The first program of the README."""

from trio_services import every, run, service


@service
async def hello(name: str) -> None:
    """Greet somebody every five seconds."""
    async for tick in every(5.0):
        print(f"hello {name} {tick.number}")


run(hello("world"))
